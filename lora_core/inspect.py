"""What a LoRA file is, as data that JSON takes: ``loom inspect --json`` and the nodes' ``report``.

Every tensor of the file is in exactly one of used, unmatched, ignored and misfit.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from .finite import HUGE, changes_nothing, examine
from .io import TensorSource, file_hashes, open_tensors, tensors_path
from .mapping import load_adapter
from .stack import Adapter
from .trigger_words import find_words
from .types import Misfit, ModuleKey, ModuleReport, Slice

Json = dict[str, object]


def inspect_file(
    path: str | os.PathLike[str],
    architecture: str | None = None,
    *,
    modules: bool = False,
    hashes: bool = True,
    check: bool = False,
) -> Json:
    """Read a LoRA file and say what it is.

    Args:
        path: a file or folder, as for ``load_adapter``.
        architecture: as for ``load_adapter``: found when None.
        modules: list each adapted module too.
        hashes: compute them, which reads the whole file; without, ``"hashes"`` is missing.
        check: look at all numbers, which reads the whole file; only then there is ``"check"``.

    Raises:
        as ``load_adapter``.
    """
    adapter = load_adapter(path, architecture)
    report = describe(adapter, path=path, modules=modules)
    if check:
        report["check"] = check_numbers(adapter, open_tensors(path))
    if hashes:
        found = file_hashes(tensors_path(path))
        report["hashes"] = {"sha256": found.sha256, "autov2": found.autov2, "autov3": found.autov3}
    return report


def describe(adapter: Adapter, *, path: str | os.PathLike[str] | None = None, modules: bool = False) -> Json:
    """The report of an adapter that is loaded; ``path`` lets the words beside the file be found."""
    mapping = adapter.report
    found = find_words(path, adapter.metadata)
    result: Json = {
        "file": mapping.file,
        "format": mapping.format,
        "architecture": mapping.architecture,
        "adapter_types": _counted(module.type for module in _once(mapping.modules)),
        "components": _counted(module.target.module.component for module in _once(mapping.modules)),
        "ranks": _ranks(mapping.modules),
        "tensors": {
            "total": mapping.total,
            "used": len(mapping.used),
            "unmatched": list(mapping.unmatched),
            "ignored": dict(mapping.ignored),
            "misfit": [misfit_json(misfit) for misfit in mapping.misfit],
        },
        "trigger_words": found.words,
        "metadata": dict(adapter.metadata),
    }
    if adapter.embeddings:
        result["embeddings"] = {
            token: {"vectors": {encoder: ref.numel // max((1, *ref.shape[-1:])) for encoder, ref in encoders.items()}}
            for token, encoders in adapter.embeddings.items()
        }
    notes = [*_source_notes(adapter), *_guesses(adapter), *found.notes]
    if notes:
        result["notes"] = notes  # a broken file beside the LoRA, say
    if modules:
        result["modules"] = [_module(module) for module in mapping.modules]
    return result


def check_numbers(adapter: Adapter, source: TensorSource) -> Json:
    """The numbers of all tensors of a file, used or not.

    Returns:
        ``{"tensors": how many were looked at, "not_finite": [{"key", "nan", "infinite", "total"}],
        "huge": [{"key", "largest"}], "zero": [keys of tensors that are all zeros],
        "unchanged": [{"module": name in the file, "zero": its keys that are all zeros}]}``; the last are modules that
        change nothing.
    """
    found = {ref.name: numbers for ref, numbers in examine(source)}
    zero = {key for key, numbers in found.items() if numbers.finite and not numbers.largest}
    names = {module.target: module.name for module in adapter.report.modules}
    unchanged: list[Json] = [
        {"module": names.get(target, ".".join(target.module)), "zero": keys}
        for target, delta in adapter.deltas
        if (keys := [key for key in delta.tensor_names if key in zero]) and changes_nothing(delta)
    ]
    return {
        "tensors": len(found),
        "not_finite": [
            {"key": key, "nan": numbers.nan, "infinite": numbers.infinite, "total": numbers.total}
            for key, numbers in found.items()
            if not numbers.finite
        ],
        "huge": [
            {"key": key, "largest": numbers.largest}
            for key, numbers in found.items()
            if numbers.largest >= HUGE and numbers.total > 1  # an alpha may be large
        ],
        "zero": sorted(zero),
        "unchanged": unchanged,
    }


def _source_notes(adapter: Adapter) -> tuple[str, ...]:
    """What the file holds besides tensors."""
    refs = (ref for _, delta in adapter.deltas for ref in delta.tensors)
    first = next(refs, None)
    return first.source.notes if first else ()


def _guesses(adapter: Adapter) -> tuple[str, ...]:
    """Raw PEFT files hold no alpha: it stays behind in PEFT's folder when somebody copies the file alone."""
    unstated = any(module.rank is not None and module.alpha is None for module in adapter.report.modules)
    if adapter.report.format != "peft" or "adapter_config" in adapter.metadata or not unstated:
        return ()
    return ("no adapter_config.json beside it, which would state alpha: a scale of 1 is taken",)


def misfit_json(misfit: Misfit) -> Json:
    """``expected`` is a shape, or a text that says what is wanted."""
    expected = misfit.expected
    shape = list(expected) if isinstance(expected, tuple) else str(expected)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return {"key": misfit.key, "expected": shape, "got": list(misfit.got)}


def _module(module: ModuleReport) -> Json:
    target = module.target
    return {
        "name": module.name,
        "component": target.module.component,
        "module": target.module.path,
        "slice": None if target.slice is None else list(target.slice),
        "type": module.type,
        "rank": module.rank,
        "alpha": module.alpha,
    }


def _once(modules: Iterable[ModuleReport]) -> list[ModuleReport]:
    """Each module once: the differences of its weight and of its bias count as one."""
    seen: dict[tuple[ModuleKey, Slice | None, str], ModuleReport] = {}
    for module in modules:
        seen.setdefault((module.target.module, module.target.slice, module.type), module)
    return list(seen.values())


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _ranks(modules: Iterable[ModuleReport]) -> dict[str, int]:
    """rank -> number of modules, smallest rank first; JSON has texts as keys."""
    counts = Counter(module.rank for module in modules if module.rank is not None)
    return {str(rank): counts[rank] for rank in sorted(counts)}
