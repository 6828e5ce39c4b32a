"""The metadata of a converted file: the source's, less what is no longer true, with the recipe and new hashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..formats.diffusers import METADATA_KEY
from ..formats.peft import CONFIG_KEY
from ..io import TensorFile, TensorSource, file_hashes
from ..merge.provenance import RECIPE_KEY
from ..version import VERSION

_PENDING = "0" * 64
# The legacy hash is of a range of bytes that lies elsewhere now; the configurations say where the source had its scale.
_STALE = ("sshs_legacy_hash", METADATA_KEY, CONFIG_KEY)


def new_metadata(
    source: TensorSource, format: str, dtype: str, more: Mapping[str, str]
) -> Callable[[Path | None], Mapping[str, str]]:
    """The metadata as a function of the written file: before it is there (None), hashes are zeros of their length.

    Args:
        more: what the format itself states there.
    """
    metadata = {key: text for key, text in source.metadata.items() if key not in _STALE}
    recipe = {
        "method": "convert",
        "lora": {"name": source.label, **_hashes(source)},
        "format": format,
        "dtype": dtype,
        "versions": {"lora-loom": VERSION, "torch": str(torch.__version__)},
    }
    metadata[RECIPE_KEY] = json.dumps(recipe, sort_keys=True)
    metadata |= more

    def describe(written: Path | None) -> Mapping[str, str]:
        body = _PENDING if written is None else file_hashes(written).body or _PENDING
        fresh = {"modelspec.hash_sha256": f"0x{body}", "sshs_model_hash": body}
        return metadata | {key: text for key, text in fresh.items() if key in metadata}

    return describe


def _hashes(source: TensorSource) -> dict[str, str | None]:
    if not isinstance(source, TensorFile):
        return {}
    hashes = file_hashes(source.path)
    return {"sha256": hashes.sha256, "autov3": hashes.autov3}
