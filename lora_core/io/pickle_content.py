"""What programs put into a pickle, sorted: tensors under flat names, numbers, texts, and what is left out.

LoRA files of this kind are a table of tensors; such a table in another one, beside steps and an optimizer; tables in
tables; or a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch

from .pickle_outline import PickleFault, TensorOutline

# Tables in which programs put the tensors, beside what else they keep.
WRAPPERS = ("state_dict", "lora_state_dict", "model_state_dict", "model", "module", "params", "lora")
_DEEPEST = 4
_MAX_ENTRIES = 200_000
_LONGEST_TEXT = 20_000
_MAX_NOTES = 20


class Content(NamedTuple):
    """
    Args:
        tensors: flat name -> tensor, or outline of one. Names in tables in tables are joined with a dot; those of a
            list are its numbers.
        numbers: alphas that are numbers and no tensors, as tensors.
        metadata: other texts and numbers.
        notes: what is left out, for the user.
    """

    tensors: dict[str, Any]
    numbers: dict[str, torch.Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def sort_content(root: object) -> Content:
    """Sort what a pickle makes, or its outline.

    Raises:
        PickleFault: more entries than a file of tensors has.
    """
    inside, beside = _unwrap(root)
    content = Content({}, {}, {}, ())
    left: list[str] = []
    for name, value in _leaves(inside):
        if name in content.tensors or name in content.numbers:
            left.append(name)  # "a.b" beside a table "a" with a "b"
        elif isinstance(value, (torch.Tensor, TensorOutline)):
            content.tensors[name] = value
        elif name.endswith("alpha") and isinstance(value, (int, float)):
            content.numbers[name] = torch.tensor(float(value), dtype=torch.float64)
        elif not _add_text(content, name, value):
            left.append(name)
    for name, value in beside.items():
        if not _add_text(content, name, value):
            left.append(name)
    notes = [f"{name} holds no tensor of a LoRA, so it is left out" for name in left[:_MAX_NOTES]]
    if len(left) > _MAX_NOTES:
        notes.append(f"{len(left) - _MAX_NOTES} more entries hold no tensor, so they are left out")
    return content._replace(notes=tuple(notes))


def _unwrap(root: object) -> tuple[object, Mapping[str, object]]:
    """The table of tensors, and what stands beside it."""
    table = _table(root)
    for name in WRAPPERS:
        inner = _table(table.get(name))
        if inner and not any(isinstance(value, (torch.Tensor, TensorOutline)) for value in table.values()):
            return inner, {key: value for key, value in table.items() if key != name}
    return root, {}


def _table(value: object) -> dict[str, object]:
    """The entries under texts."""
    items = cast("dict[object, object]", value).items() if isinstance(value, dict) else ()
    return {key: entry for key, entry in items if isinstance(key, str)}


def _leaves(root: object) -> Iterator[tuple[str, object]]:
    """What is neither table nor list, with its name; a list inside a table is a leaf."""
    if isinstance(root, (list, tuple)):
        root = {str(index): value for index, value in enumerate(cast("list[object]", root))}
    waiting = [("", root, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if seen > _MAX_ENTRIES:
            raise PickleFault(f"it has more than {_MAX_ENTRIES} entries")
        if isinstance(value, dict) and depth < _DEEPEST:
            before = f"{name}." if name else ""
            entries = _table(cast("object", value))
            if seen + len(waiting) + len(entries) > _MAX_ENTRIES:
                raise PickleFault(f"it has more than {_MAX_ENTRIES} entries")
            waiting += [(before + key, inner, depth + 1) for key, inner in reversed(entries.items())]
        else:
            yield name, value


def _add_text(content: Content, name: str, value: object) -> bool:
    """Whether a value is a text or a number, which then is metadata."""
    if not isinstance(value, (str, int, float)):
        return False
    content.metadata[name[:_LONGEST_TEXT]] = str(value)[:_LONGEST_TEXT]
    return True
