"""The routes of blocks: those of a family, block weights in any form, and the norm of a LoRA in each."""

from __future__ import annotations

from ..lora_core.architectures import ARCHITECTURES
from ..lora_core.block_presets import presets_for
from ..lora_core.blocks import parse_blocks, vector_layouts
from ..lora_core.errors import LoomError
from ..lora_core.mapping import load_adapter
from ..lora_core.norms import file_norms
from . import _files
from ._route import Asked, Json, Route


def _blocks(asked: Asked) -> Json:
    """``GET /loom/blocks``."""
    row = ARCHITECTURES.get(asked.text("architecture"))
    return {
        "architecture": row.name,
        "title": row.title,
        "blocks": list(row.blocks),
        "presets": [{"name": name, "text": text} for name, text in presets_for(row)],
        "vectors": [{"source": layout.source, "length": len(layout.cells)} for layout in vector_layouts(row)],
    }


def _factors(asked: Asked) -> Json:
    """``POST /loom/blocks``."""
    row = ARCHITECTURES.get(asked.text("architecture"))
    try:
        return {"factors": parse_blocks(asked.text("text", ""), row), "fault": ""}
    except LoomError as error:  # the question is a good one: it is asked while somebody types
        return {"factors": {}, "fault": error.message}


def _norms(asked: Asked) -> Json:
    """``GET /loom/norms``."""
    path = _files.lora_path(asked.text("name"))
    blocks = [{"name": name, "norm": norm} for name, norm in file_norms(path).items()]
    return {"blocks": blocks, "architecture": load_adapter(path).architecture}


ROUTES = (
    Route("GET", "/loom/blocks", _blocks),
    Route("POST", "/loom/blocks", _factors),
    Route("GET", "/loom/norms", _norms, "slow"),
)
