"""The routes of LoRA Stack's rows: what was pasted, and what fits the model that is connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from ..lora_core.errors import ConfigError, LoomError, UnknownNameError
from ..lora_core.io import state_of
from ..lora_core.mapping import load_adapter
from ..lora_core.model_family import ModelFit, model_family, model_fit, model_state
from ..lora_core.names import resolve_name
from ..lora_core.pasted import read_pasted
from ..lora_core.rows import Row
from . import _files
from ._route import Asked, Json, Route
from ._routes_library import known_autov3, library

# Kind of a model in the page's question -> its file by its name in the graph.
MODELS: Mapping[str, Callable[[str], Path]] = {
    "checkpoints": _files.checkpoint_path,
    "diffusion_models": _files.model_path,
    "demo": lambda name: _files.checkpoint_path(name or _files.BUILT_IN),
}
# LoRAs in one question; a stack has a handful.
MAX_LORAS = 1_000
# Bytes that are read for the hash of a pasted row; the node itself reads all, if it must.
MAX_HASHED = 4 << 30


def _rows(asked: Asked) -> Json:
    """``POST /loom/rows``."""
    pasted = read_pasted(asked.body.get("rows"))
    rows: list[Json] = []
    faults = list(pasted.faults)
    for row in pasted.rows:
        found, fault = _named(row)
        rows += [asdict(found)] if found else []
        faults += [fault] if fault else []
    return {"rows": rows, "faults": faults}


def _named(row: Row) -> tuple[Row | None, str]:
    """The row with its file's name in the list, else as it is; and what is wrong with the name."""
    try:
        return replace(row, lora=row_name(row)), ""
    except ConfigError as error:  # a path: no node would take it
        return None, error.message
    except LoomError as error:
        return row, error.message


def row_name(row: Row) -> str:
    """The name in the list that a row means, errors as ``lora_name``: by the hashes that the library has; the files
    without are read where that is no matter of minutes."""
    unread: dict[str, int] = {}

    def autov3(name: str) -> str | None:
        known = known_autov3(library(), name)
        if known is None and (file := library().row(name)):
            unread[name] = file.file.size
        return known

    try:
        return resolve_name(row.lora, _files.lora_names(), row.hash, autov3)
    except UnknownNameError:
        if not 0 < sum(unread.values()) <= MAX_HASHED:
            raise
        return _files.lora_name(row.lora, row.hash)


def _fit(asked: Asked) -> Json:
    """``POST /loom/fit``."""
    wanted = asked.body.get("model")
    names = asked.body.get("loras")
    if not isinstance(wanted, dict) or not isinstance(names, list) or len(names) > MAX_LORAS:
        raise ConfigError("request", [f"expected a model and at most {MAX_LORAS} names of LoRAs"])
    kind, name = str(wanted.get("kind")), wanted.get("name", "")
    if kind not in MODELS or not isinstance(name, str):
        raise ConfigError("model", [f"expected a kind, one of {', '.join(MODELS)}, and a name"])
    path = MODELS[kind](name)
    try:
        model = model_family(path)
    except LoomError as error:
        unknown = {"fits": None, "matched": 0, "total": 0, "reason": error.message}
        return {"architecture": "", "title": "", "fits": {str(lora): unknown for lora in names}}
    state = model_state(path)
    fits = {str(lora): _fit_of(str(lora), str(path), state) for lora in names}
    return {"architecture": model.architecture.name, "title": model.architecture.title, "fits": fits}


def _fit_of(name: str, model: str, model_is: str) -> Json:
    try:
        path = _files.lora_path(name)
        found = _of_pair(path, state_of(path), model, model_is)
    except (LoomError, OSError) as error:
        why = error.message if isinstance(error, LoomError) else f"it cannot be read: {error.strerror}"
        return {"fits": False, "matched": 0, "total": 0, "reason": why}
    return {"fits": not found.reason, "matched": found.matched, "total": found.total, "reason": found.reason}


@lru_cache(maxsize=2048)
def _of_pair(path: str, state: str, model: str, model_is: str) -> ModelFit:
    """Kept as long as both files are the same; the families of models are kept by ``model_family``."""
    family = model_family(model)
    return model_fit(load_adapter(path, prefer=family.architecture.name), family)


ROUTES = (
    Route("POST", "/loom/rows", _rows),
    Route("POST", "/loom/fit", _fit),
)
