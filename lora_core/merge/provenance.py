"""What a merged checkpoint says of itself: the source's metadata, the recipe, the hashes of what went in.

The sha256 of a checkpoint takes as long as copying it, so it is computed in a thread while the tensors are
written; the header holds its place until then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import torch

from ..io import FileHashes, TensorFile, file_hashes
from ..io.hashes import sha256_of
from ..stack import Adapter, Stack, StackEntry
from ..version import VERSION
from .source import Checkpoint

RECIPE_KEY = "loom.recipe"

_PENDING = "0" * 64
# Hashes of the source's own content: not true of the merged file.
_STALE = ("sshs_model_hash", "sshs_legacy_hash")


class InputHashes:
    """The hashes of the files that go in, computed beside the merge; leaving the block stops the work."""

    def __init__(self, checkpoint: Checkpoint, stack: Stack) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, "loom-hash")
        self._checkpoint: dict[str, Future[str]] = {
            name: self._pool.submit(sha256_of, path, 0, self._check) for name, path in checkpoint.files.items()
        }
        paths = [_path(entry.adapter) for entry in stack.entries]
        self._loras = [path and self._pool.submit(file_hashes, path) for path in paths]

    def __enter__(self) -> InputHashes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _check(self) -> None:
        if self._stop.is_set():
            raise CancelledError

    def checkpoint(self, wait: bool) -> dict[str, str]:
        """name -> sha256, or zeros in its place."""
        return {name: future.result() if wait else _PENDING for name, future in self._checkpoint.items()}

    def lora(self, index: int, wait: bool) -> dict[str, str | None]:
        """Hashes of one file of the stack, or zeros in their place; nothing for tensors in memory."""
        future = self._loras[index]
        if future is None:
            return {}
        hashes = future.result() if wait else FileHashes(_PENDING, _PENDING)
        return {"sha256": hashes.sha256, "autov3": hashes.autov3}


def merged_metadata(
    checkpoint: Checkpoint, stack: Stack, out: Path, dtype: str, hashes: InputHashes
) -> Callable[[Path | None], Mapping[str, str]]:
    """The metadata as a function of the written file: before it is there (None), hashes are zeros of their length."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def describe(written: Path | None) -> Mapping[str, str]:
        wait = written is not None
        recipe = {
            "method": "merge-to-checkpoint",
            "checkpoint": {
                "name": checkpoint.label,
                "architecture": checkpoint.architecture.name,
                "sha256": hashes.checkpoint(wait),
            },
            "loras": [_lora(entry) | hashes.lora(at, wait) for at, entry in enumerate(stack.entries)],
            "dtype": dtype,
            "versions": {"lora-loom": VERSION, "torch": str(torch.__version__)},
        }
        metadata = {key: text for key, text in checkpoint.metadata.items() if key not in _STALE}
        metadata[RECIPE_KEY] = json.dumps(recipe, sort_keys=True)
        return metadata | _modelspec(checkpoint, stack, out, now, written)

    return describe


def _modelspec(checkpoint: Checkpoint, stack: Stack, out: Path, now: str, written: Path | None) -> dict[str, str]:
    """The fields of modelspec that a merge makes untrue, where the source has them."""
    if not any(key.startswith("modelspec.") for key in checkpoint.metadata):
        return {}
    names = [checkpoint.label, *(entry.adapter.file for entry in stack.entries)]
    fields = {"modelspec.title": out.stem, "modelspec.merged_from": ", ".join(Path(name).stem for name in names)}
    if "modelspec.date" in checkpoint.metadata:
        fields["modelspec.date"] = now
    if "modelspec.hash_sha256" in checkpoint.metadata:
        fields["modelspec.hash_sha256"] = "0x" + (_PENDING if written is None else _body_hash(written))
    return fields


def _body_hash(path: Path) -> str:
    """sha256 of the bytes of the tensors."""
    with path.open("rb") as handle:
        return sha256_of(path, 8 + int.from_bytes(handle.read(8), "little"))


def _lora(entry: StackEntry) -> dict[str, object]:
    strengths = entry.strengths
    return {
        "name": entry.adapter.file,
        "model": strengths.model,
        "clip": strengths.clip,
        "components": dict(strengths.components),
        "blocks": dict(strengths.blocks),
    }


def _path(adapter: Adapter) -> Path | None:
    """Where the adapter's file is; None for tensors in memory."""
    for _, delta in adapter.deltas:
        for tensor in delta.tensors:
            return tensor.source.path if isinstance(tensor.source, TensorFile) else None
    return None
