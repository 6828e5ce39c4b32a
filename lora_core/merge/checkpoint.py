"""A stack merged into a checkpoint, streamed: read, patch, write, one tensor at a time.

Tensors that nothing changes go from file to file inside the kernel; those that a patch changes are computed by
``patching.apply_patch``, the same code as everywhere. Quantised weights are dequantised, patched, and requantised
or, where another dtype is chosen, rounded. The result appears whole or not at all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..adapters import Delta
from ..errors import ConfigError, UnmappedKeysError
from ..finite import check_delta
from ..io import stream_safetensors
from ..io.ahead import Ahead
from ..mapping import require_complete
from ..patching import Binding, bind
from ..stack import Stack
from ..types import TEXT_ENCODERS
from .entries import Plan, forget
from .provenance import InputHashes, merged_metadata
from .quantised_weights import without_quantisation
from .report import MergeReport
from .source import Checkpoint, open_checkpoint
from .vae import with_vae

Progress = Callable[[int, int], None]
Device = torch.device | str


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
        ConfigError: nothing to merge, or a weight that is quantised in a way that is not known.
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
    quantised = dict(Counter(layer.format for layer in checkpoint.quantised.layers.values()))
    if dtype != "same":
        checkpoint = without_quantisation(checkpoint)
    binding = bind(stack, checkpoint.shape_of, checkpoint.architecture, checkpoint.components)
    _require_fit(checkpoint, stack, binding, strict)
    _check_numbers(stack)
    plan = Plan(checkpoint, binding, dtype, device)

    def tell(done: int, total: int) -> None:
        if cancel is not None:
            cancel()
        if progress is not None:
            progress(done, total)

    tell(0, sum(entry.nbytes for entry in plan.entries))
    with InputHashes(checkpoint, stack) as hashes:
        describe = merged_metadata(checkpoint, stack, Path(out), dtype, hashes)
        stream_safetensors(out, plan.entries, describe(None), overwrite=overwrite, progress=tell, late=describe)
    return MergeReport(
        out=Path(out),
        checkpoint=checkpoint.label,
        architecture=checkpoint.architecture.name,
        dtype=dtype,
        tensors=len(plan.entries),
        patched=plan.patched,
        bytes=os.path.getsize(out),
        seconds=time.monotonic() - started,
        loras=binding.reports,
        left_out={**checkpoint.left_out, **_not_merged(stack)},
        rounding=plan.rounding(),
        quantised=quantised,
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


def _not_merged(stack: Stack) -> dict[str, str]:
    """What of the LoRAs' files changes no weight -> why, less what was never meant to."""
    left: dict[str, str] = {}
    for adapter in (entry.adapter for entry in stack.entries):
        report = adapter.report
        reasons = {
            **report.unmatched,
            **{one.key: f"expected {one.expected}, got {one.got}" for one in report.misfit},
            **{
                ref.name: f"the embedding {token!r}, for which a checkpoint has no place: load the LoRA for it"
                for token, encoders in adapter.embeddings.items()
                for ref in encoders.values()
            },
        }
        left |= {f"{adapter.file}: {key}": reason for key, reason in reasons.items()}
    return left


def _check_numbers(stack: Stack) -> None:
    """Every number of every LoRA must be finite; it is known before anything is written."""

    def check(file: str, delta: Delta) -> None:
        check_delta(file, delta)
        forget(delta.tensors)

    jobs = [partial(check, entry.adapter.file, delta) for entry in stack.entries for _, delta in entry.adapter.deltas]
    with Ahead(jobs) as checks:
        for _ in checks:
            pass
