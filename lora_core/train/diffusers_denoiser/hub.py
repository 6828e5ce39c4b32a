"""A pipeline of the hub as a folder: what its cache has is taken without asking the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import ConfigError
from .folder import INDEX
from .libraries import library

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_MODELS = PARTS[:4]


def hub_folder(repository: str, revision: str, half: bool) -> Path:
    """The snapshot's folder, downloaded where it is not whole in the cache.

    Args:
        repository: ``owner/name``.
        revision: branch or commit, "" for the main one.
        half: whether weights in fp16 will do, which many pipelines have beside those in fp32.

    Raises:
        ConfigError: it is not in the cache, and the hub does not answer or has no such repository.
    """
    folder = cached(repository, INDEX, revision)
    if folder is not None and is_whole(folder):
        return folder
    hub = library("huggingface_hub")
    known = revision or None
    try:
        # One question, asked once: list_repo_files asks six times where there is no network.
        files = hub.HfApi().model_info(repository, revision=known).siblings or ()
        wanted = wanted_files([file.rfilename for file in files], half)
        return Path(hub.snapshot_download(repository, revision=known, allow_patterns=wanted))
    except failures() as error:
        fault = (
            f"{repository!r} is no folder or file here, is not whole in the hub's cache, and cannot be downloaded "
            f"({type(error).__name__}); give the path of a pipeline's folder or of a checkpoint"
        )
        raise ConfigError("model.base", [fault]) from error


def failures() -> tuple[type[Exception], ...]:
    """What the hub's library raises where the hub does not answer, or not as hoped."""
    errors = library("huggingface_hub.errors")
    # From its version 1 on, what its HTTP library raises is no OSError and is passed on as it is.
    passed_on: type[Exception] = getattr(errors, "HTTPError", OSError)
    return (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, passed_on, OSError)


def cached(repository: str, name: str, revision: str = "") -> Path | None:
    """The folder of a repository's snapshot in the cache, where this file of it is there.

    (``snapshot_download`` refuses snapshots of which only some files were wanted.)
    """
    hub, errors = library("huggingface_hub"), library("huggingface_hub.errors")
    try:
        path = hub.try_to_load_from_cache(repository, name, revision=revision or None)
    except errors.HFValidationError:
        return None
    return Path(path).parents[name.count("/")] if isinstance(path, str) else None


def wanted_files(names: Iterable[str], half: bool) -> list[str]:
    """Of a repository's files those of the parts, each part's weights once: safetensors before pickles."""
    names = list(names)
    return [INDEX, *(name for part in PARTS for name in _of_part(part, names, half))]


def is_whole(folder: Path) -> bool:
    """Whether every part that the index names is there, with weights and all their pieces."""
    index = folder / INDEX
    if not index.is_file():
        return False
    parts = json.loads(index.read_text(encoding="utf-8"))
    used = [part for part in PARTS if (parts.get(part) or [None])[0] is not None]
    return all(_has_part(folder / part, part) for part in used)


def _has_part(folder: Path, part: str) -> bool:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if part not in _MODELS:
        return any(name.endswith(".json") for name in names)
    shards = [name for name in names if name.endswith(".index.json")]
    pieces = {
        piece
        for name in shards
        for piece in json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
    }
    weights = [name for name in names if name.endswith((".safetensors", ".bin"))]
    return "config.json" in names and bool(weights) and pieces <= set(names)


def _of_part(part: str, names: list[str], half: bool) -> Iterator[str]:
    own = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
    weights = [name for name in own if name.endswith((".safetensors", ".bin", ".index.json"))]
    yield from (name for name in own if name not in weights and name.endswith((".json", ".txt")))
    safe = [name for name in weights if ".safetensors" in name]
    kinds: list[list[str]] = [
        [name for name in kind if (".fp16." in name) == wanted and ".non_ema" not in name]
        for kind in (safe, [name for name in weights if name not in safe])
        for wanted in ((True, False) if half else (False, True))
    ]
    yield from next(filter(None, kinds), ())
