"""A stack merged into a checkpoint, streamed: read, patch, write, one tensor at a time.

Tensors that nothing changes go from file to file inside the kernel; those that a patch changes are computed by
``patching.apply_patch``, the same code as everywhere. The result appears whole or not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ..adapters import Delta
from ..architectures import Place
from ..errors import ConfigError, UnmappedKeysError
from ..finite import check_delta
from ..inspect import misfit_json
from ..io import Entry, TensorRef, stream_safetensors
from ..io.ahead import Ahead
from ..io.dtypes import FP8, TORCH_DTYPES
from ..mapping import require_complete
from ..patching import Binding, BindReport, Patch, apply_patch, bind, rounded
from ..stack import Stack
from ..types import TEXT_ENCODERS
from . import vae_names
from .dtypes import output_dtype
from .provenance import InputHashes, merged_metadata
from .source import Checkpoint, Stored, open_checkpoint
from .vae import with_vae

Progress = Callable[[int, int], None]
Device = torch.device | str

# Keys beside an fp8 weight that hold the number it has to be multiplied with; two namings are in use.
_SCALES = ("scale_weight", "weight_scale")

_MODEL_PREFIXES = (vae_names.PREFIX, "vae.", "model_ema.")


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did.

    Args:
        out: the file that was written.
        checkpoint: name of the source.
        architecture: name in ``ARCHITECTURES``.
        dtype: as chosen.
        tensors: in the file.
        patched: of these, changed by the stack.
        bytes: size of the file.
        seconds: from opening to the finished file.
        loras: how much of each file of the stack the checkpoint took.
        left_out: tensors of a pipeline folder that a single-file checkpoint has no place for -> reason.
    """

    out: Path
    checkpoint: str
    architecture: str
    dtype: str
    tensors: int
    patched: int
    bytes: int
    seconds: float
    loras: tuple[BindReport, ...]
    left_out: Mapping[str, str]

    def as_json(self) -> dict[str, object]:
        """For ``--json`` and the node's report."""
        return {
            "file": self.out.name,
            "checkpoint": self.checkpoint,
            "architecture": self.architecture,
            "dtype": self.dtype,
            "tensors": {"total": self.tensors, "patched": self.patched},
            "bytes": self.bytes,
            "seconds": round(self.seconds, 2),
            "loras": [_lora_json(report) for report in self.loras],
            "left_out": dict(self.left_out),
        }


def _lora_json(report: BindReport) -> dict[str, object]:
    return {
        "file": report.file,
        "modules": {"total": report.total, "fitting": report.fitting},
        "missing": dict(report.missing),
        "misfit": [misfit_json(misfit) for misfit in report.misfits],
        "absent": dict(report.absent),
    }


def merge_to_checkpoint(
    source: Checkpoint | str | os.PathLike[str],
    stack: Stack,
    out: str | os.PathLike[str],
    *,
    dtype: str = "same",
    text_encoders: bool = True,
    vae: str | os.PathLike[str] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    device: Device = "cpu",
    progress: Progress | None = None,
    cancel: Callable[[], object] | None = None,
) -> MergeReport:
    """Write a checkpoint with the stack in its weights.

    Args:
        source: a single-file checkpoint, the folder of a diffusers pipeline (it becomes a single file), or one
            that is open already.
        stack: LoRAs with strengths.
        out: the file to write. It may be the source itself, with ``overwrite``.
        dtype: one of ``dtypes.DTYPES``.
        text_encoders: merge into the text encoders too; else they stay as they are.
        vae: a VAE file whose tensors take the place of the checkpoint's own.
        strict: raise when a tensor of a LoRA is not used.
        overwrite: replace a file that is there.
        device: where patches are computed.
        progress: called with (bytes done, bytes in all) as the file grows.
        cancel: called as often; what it raises stops the merge and leaves nothing behind.

    Raises:
        UnknownCheckpointError, CorruptFileError: the source cannot be used.
        WrongBaseError: a LoRA was made for another model.
        ConfigError: nothing to merge, or a dtype that this checkpoint cannot be written in.
        UnmappedKeysError: ``strict`` and something of a LoRA is not used.
        NonFiniteError: a LoRA holds NaN or infinity.
        OutputExistsError, DiskFullError: the file cannot be written.
    """
    started = time.monotonic()
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    if vae is not None:
        checkpoint = with_vae(checkpoint, vae)
    if not text_encoders:
        stack = _without_text(stack)
    binding = bind(stack, checkpoint.shape_of, checkpoint.architecture, checkpoint.components)
    _require_fit(checkpoint, stack, binding, strict)
    _check_numbers(stack)
    changes = _changes(checkpoint, binding)
    entries = _entries(checkpoint, changes, dtype, device)

    def tell(done: int, total: int) -> None:
        if cancel is not None:
            cancel()
        if progress is not None:
            progress(done, total)

    tell(0, sum(entry.nbytes for entry in entries))
    with InputHashes(checkpoint, stack) as hashes:
        describe = merged_metadata(checkpoint, stack, Path(out), dtype, hashes)
        stream_safetensors(out, entries, describe(None), overwrite=overwrite, progress=tell, late=describe)
    return MergeReport(
        out=Path(out),
        checkpoint=checkpoint.label,
        architecture=checkpoint.architecture.name,
        dtype=dtype,
        tensors=len(entries),
        patched=len(changes),
        bytes=os.path.getsize(out),
        seconds=time.monotonic() - started,
        loras=binding.reports,
        left_out=checkpoint.left_out,
    )


def _without_text(stack: Stack) -> Stack:
    """The same stack at strength 0 for every text encoder."""
    still = dict.fromkeys(TEXT_ENCODERS, 0.0)
    entries = (
        replace(entry, strengths=replace(entry.strengths, components={**entry.strengths.components, **still}))
        for entry in stack.entries
    )
    return Stack(tuple(entries))


def _require_fit(checkpoint: Checkpoint, stack: Stack, binding: Binding, strict: bool) -> None:
    """Every file of the stack must change something; with ``strict`` all of it must."""
    if not stack.entries:
        raise ConfigError(checkpoint.label, ["nothing to merge: give at least one LoRA"])
    for entry, report in zip(stack.entries, binding.reports, strict=True):
        if strict:
            require_complete(entry.adapter.report)
        left = [*report.missing, *(misfit.key for misfit in report.misfits)]
        why = f"{checkpoint.label} does not have them"
        if report.absent:
            why = f"{checkpoint.label} has no {' and no '.join(report.absent)}"
        if not report.fitting:
            raise ConfigError(report.file, [f"none of its {report.total} modules can be merged: {why}"])
        if strict and left:
            raise UnmappedKeysError(report.file, left, report.total, why, "modules")


def _check_numbers(stack: Stack) -> None:
    """Every number of every LoRA must be finite; it is known before anything is written."""

    def check(file: str, delta: Delta) -> None:
        check_delta(file, delta)
        _forget(delta.tensors)

    jobs = [partial(check, entry.adapter.file, delta) for entry in stack.entries for _, delta in entry.adapter.deltas]
    with Ahead(jobs) as checks:
        for _ in checks:
            pass


def _forget(refs: Iterable[TensorRef]) -> None:
    """Files of many gigabytes pass by: what was read is not kept."""
    for ref in refs:
        ref.source.forget(ref)


# What changes one tensor of the checkpoint: patches of disjoint parts of it, each with its place.
_Changes = list[tuple[Patch, Place]]


def _changes(checkpoint: Checkpoint, binding: Binding) -> dict[str, _Changes]:
    changes: dict[str, _Changes] = {}
    for target, patch in binding.patches.items():
        place = checkpoint.places[target]
        changes.setdefault(place.key, []).append((patch, place))
    return changes


def _entries(checkpoint: Checkpoint, changes: Mapping[str, _Changes], dtype: str, device: Device) -> list[Entry]:
    """What to write, wide numbers first as the safetensors library does it, so that every tensor is aligned."""
    if dtype != "same" and (scaled := next((key for key in checkpoint.tensors if key.endswith(_SCALES)), None)):
        fault = f"its fp8 weights have scales ({scaled}), so it can be written with dtype 'same' only, not {dtype!r}"
        raise ConfigError(checkpoint.label, [fault])
    weights = {place.key for place in checkpoint.places.values()}
    prefixes = (*(part.checkpoint_prefix for part in checkpoint.architecture.components), *_MODEL_PREFIXES)
    entries: list[Entry] = []
    for key, stored in checkpoint.tensors.items():
        written = output_dtype(dtype, key, stored.dtype, stored.shape, weights, prefixes)
        entries.append(_entry(checkpoint, key, stored, changes.get(key, []), written, device))
    return sorted(entries, key=lambda entry: -TORCH_DTYPES[entry.dtype].itemsize)


def _entry(checkpoint: Checkpoint, key: str, stored: Stored, changes: _Changes, dtype: str, device: Device) -> Entry:
    whole = stored.whole
    if not changes and dtype == stored.dtype and whole is not None:
        return Entry(key, dtype, stored.shape, whole)

    def compute() -> torch.Tensor:
        result = _changed(checkpoint, key, changes, TORCH_DTYPES[dtype], device)
        deltas = (part.delta for patch, _ in changes for part in patch.parts)
        _forget([*(piece.ref for piece in stored.pieces), *(ref for delta in deltas for ref in delta.tensors)])
        return result

    return Entry(key, dtype, stored.shape, compute)


def _changed(checkpoint: Checkpoint, key: str, changes: _Changes, dtype: torch.dtype, device: Device) -> torch.Tensor:
    """The tensor with its patches, rounded once."""
    stored = checkpoint.load(key)
    scale = _scale(checkpoint, key) if stored.dtype in FP8 else None
    if scale is not None and changes:
        dense = _apply(stored.to(torch.float32) * scale, changes, torch.float32, device)
        return rounded(dense / scale, dtype)
    return _apply(stored, changes, dtype, device)


def _apply(stored: torch.Tensor, changes: _Changes, dtype: torch.dtype, device: Device) -> torch.Tensor:
    if len(changes) == 1 and changes[0][1].slice is None and not changes[0][1].transposed:
        return apply_patch(stored, changes[0][0], device=device, dtype=dtype)
    result = rounded(stored, dtype)
    if changes and result.data_ptr() == stored.data_ptr():
        result = result.clone()  # never write to the file's map
    for patch, place in changes:
        part, into = (tensor if place.slice is None else tensor.narrow(*place.slice) for tensor in (stored, result))
        if place.transposed:
            part, into = part.T, into.T
        into.copy_(apply_patch(part, patch, device=device, dtype=dtype))
    return result


def _scale(checkpoint: Checkpoint, key: str) -> torch.Tensor | None:
    """What a scaled fp8 weight has to be multiplied with: one number, or one per row."""
    if not key.endswith("weight"):
        return None
    names = (key.removesuffix("weight") + name for name in _SCALES)
    found = next((name for name in names if name in checkpoint.tensors), None)
    if found is None:
        return None
    scale = checkpoint.load(found).to(torch.float32)
    return scale.reshape(-1, 1) if scale.numel() > 1 else scale.reshape(())
