"""The host's LORA_MODEL as a file: its tensors as they are, or in the words of a format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..lora_core import map_source
from ..lora_core.convert import convert_lora
from ..lora_core.errors import ConfigError, NonFiniteError
from ..lora_core.io import Entry, TensorDict, stream_safetensors
from ..lora_core.io.dtypes import NAMES
from ..lora_core.merge.dtypes import CASTS

# In the place of a format: the tensors under the names that they have.
AS_IS = "as it is"
LABEL = "LORA_MODEL"
# Fields of Stability's ModelSpec and kohya's, as a user may call them.
_MODELSPEC = (
    "title", "author", "description", "license", "tags", "trigger_phrase", "usage_hint", "date", "resolution",
    "prediction_type", "merged_from", "thumbnail",
)  # fmt: skip
_KEYS = {**{name: f"modelspec.{name}" for name in _MODELSPEC}, "comment": "ss_training_comment"}
_KEYS["trigger_words"] = _KEYS["trigger_phrase"]

Progress = Callable[[int, int], None]


class Saved(NamedTuple):
    """What was written.

    Args:
        file: of a format that is a folder, the file in it that loaders list.
        left_out: keys that are not in it -> why.
    """

    file: Path
    left_out: Mapping[str, str]


def save(tensors: Any, out: Path, format: str, dtype: str, metadata: Mapping[str, str], progress: Progress) -> Saved:
    """Write the file.

    Args:
        tensors: a LORA_MODEL, key -> tensor, on any device.
        out: the file, or folder, to make.
        format: one of ``WRITERS``, or ``AS_IS``.
        dtype: one of ``DTYPES``.
        metadata: text -> text.
        progress: called with (bytes done, bytes in all).

    Raises:
        ConfigError: what is connected is no LORA_MODEL.
        UnknownFormatError, UnknownArchitectureError: its tensors fit no format or no model that is known.
        ConversionError: the format has no way to say one of them.
        NonFiniteError: NaN or infinity in it.
    """
    source = TensorDict(_checked(tensors), LABEL, metadata)
    if format != AS_IS:
        done = convert_lora(map_source(source), out, format, dtype=dtype, progress=progress)
        return Saved(done.files[0], done.left_out)
    entries = [_entry(source, key, dtype) for key in source]
    stream_safetensors(out, entries, {"format": "pt", **metadata}, progress=progress)
    return Saved(out, {})


def _checked(tensors: Any) -> dict[str, torch.Tensor]:
    """The tensors, on the CPU."""
    if not isinstance(tensors, Mapping) or not tensors:
        got = "an empty one" if isinstance(tensors, Mapping) else f"a {type(tensors).__name__}"
        raise ConfigError("lora_model", [f"expected a LORA_MODEL, got {got}; connect a node that makes one"])
    faults = [str(key) for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    faults += [str(key) for key, value in tensors.items() if getattr(value, "dtype", None) not in {*NAMES, None}]
    if faults:
        raise ConfigError("lora_model", [f"{key} is no tensor that a file can hold" for key in faults[:3]])
    return {str(key): value.detach().cpu() for key, value in tensors.items()}


def _entry(source: TensorDict, key: str, dtype: str) -> Entry:
    ref = source[key]
    tensor = ref.load()
    wanted = CASTS.get(dtype, tensor.dtype) if tensor.is_floating_point() else tensor.dtype
    finite = torch.isfinite(tensor.float()) if tensor.is_floating_point() else torch.tensor(True)
    if not bool(finite.all()):
        raise NonFiniteError(LABEL, key, int((~finite).sum()), tensor.numel())
    cast = partial(_cast, key, tensor, wanted)
    return Entry(key, NAMES[wanted], ref.shape, cast)


def _cast(key: str, tensor: torch.Tensor, wanted: torch.dtype) -> torch.Tensor:
    done = tensor.to(wanted)
    if wanted != tensor.dtype and bool(done.isinf().any()):
        raise ConfigError(LABEL, [f"{key} has numbers beyond 65504, where fp16 ends. Save with dtype bf16 or fp32"])
    return done


def parse_metadata(text: str) -> dict[str, str]:
    """Lines of ``key = value``, or a JSON object of texts; ``title`` and its like become ``modelspec.title``.

    Raises:
        ConfigError: lines that are neither; all at once.

    >>> parse_metadata("title = Ink\\ncomment = dry brush")
    {'modelspec.title': 'Ink', 'ss_training_comment': 'dry brush'}
    """
    if text.lstrip().startswith("{"):
        pairs = _json_pairs(text)
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if faults := [f"{line!r}: expected key = value" for line in lines if line.find("=") < 1]:
            raise ConfigError("metadata", faults)
        pairs = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    found = {_KEYS.get(key, key): value for key, value in pairs.items()}
    is_spec = any(key.startswith("modelspec.") for key in found)
    return {**({"modelspec.sai_model_spec": "1.0.1"} if is_spec else {}), **found}


def _json_pairs(text: str) -> dict[str, str]:
    try:
        pairs = json.loads(text)
    except ValueError as error:
        raise ConfigError("metadata", [f"begins with a brace and is not JSON: {error}"]) from None
    if wrong := [key for key, value in pairs.items() if not isinstance(value, str)]:
        raise ConfigError("metadata", [f"{key}: expected a text in quotes" for key in wrong])
    return pairs


def name_in(folder_name: str, out: Path, file: Path) -> str:
    """The written file as the list of LoRAs has it, ``folder_name`` being that of ``out``."""
    return os.path.normpath(os.path.join(folder_name, os.path.relpath(file, out)))
