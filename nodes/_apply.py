"""Entries of a LORA_STACK -> adapters -> patched MODEL and CLIP, with report and trigger words. All loaders use it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from comfy.model_management import throw_exception_if_processing_interrupted

from ..lora_core import Adapter, Stack, StackEntry, Strengths, load_adapter
from ..lora_core.architectures import ARCHITECTURES, Architecture
from ..lora_core.blocks import parse_blocks
from ..lora_core.errors import ConfigError, UnmappedKeysError
from ..lora_core.finite import check_finite
from ..lora_core.mapping import require_complete
from ..lora_core.numeric import finite
from ..lora_core.patching import BindReport, Patch
from ..lora_core.rows import StackItem
from ..lora_core.trigger_words import trigger_words
from . import _files
from ._bridge import patched, read_model
from ._embeddings import give_embeddings
from ._report import embeddings_report, lora_report, taken


@dataclass(frozen=True, slots=True)
class Applied:
    """What a loader returns, the adapters of its files in their order, and what the page shows of each."""

    model: Any
    clip: Any
    trigger_words: str
    report: str
    adapters: tuple[Adapter, ...]
    taken: tuple[dict[str, Any], ...] = ()

    def shown(self, places: Sequence[int | None] = ()) -> dict[str, list[Any]]:
        """The node's ``ui``, which the host sends to the page: ``output.loom[0]`` is a list of ``_report.taken``.

        One list in a list: the host counts each object of a list of outputs as a picture of the job.

        Args:
            places: of each LoRA, the row of the node that it is from; None for one from elsewhere.
        """
        rows = [*places, *([None] * (len(self.taken) - len(places)))]
        return {"loom": [[{"row": row, **one} for row, one in zip(rows, self.taken, strict=True)]]}


def apply_items(model: Any, clip: Any, items: Sequence[StackItem], strict: bool) -> Applied:
    """Load the files, put them on what is connected, and say what fitted.

    Args:
        model, clip: the host's, or None.
        items: entries of a ``LORA_STACK``.
        strict: a tensor that is not used is an error.

    Raises:
        LoomError: its text is what the user reads.
    """
    host = read_model(model, clip)
    stack = read_stack(items, host.architecture if host else None, model is not None)
    host = host and host.meant_for(entry.adapter.architecture for entry in stack.entries)
    fits: Sequence[BindReport | None] = [None] * len(items)
    patches: dict[str, Patch] = {}
    if host is not None:
        model, clip, binding = patched(host, stack)
        fits = binding.reports
        patches = {host.key(target): patch for target, patch in binding.patches.items()}
    if strict:
        for entry, fit in zip(stack.entries, fits, strict=True):
            require_complete(entry.adapter.report)
            _require_fit(fit)
    adapters = tuple(entry.adapter for entry in stack.entries)
    clip, embeddings = give_embeddings(clip, adapters)
    words: list[str] = []
    reports: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for item, entry, fit, given in zip(items, stack.entries, fits, embeddings, strict=True):
        path = _files.lora_path(item[0], item.hash)
        words += trigger_words(path, entry.adapter.metadata)
        words += [embedding.prompt for embedding in given if embedding.prompt]
        report = lora_report(path, item, entry, fit, host.architecture if host else None)
        report |= embeddings_report(report, given)
        report["notes"] += host.notes if host else []
        if host is not None and patches:
            report |= host.quantised.report(patches, entry.adapter.file)
        reports.append(report)
        title = host.architecture.title if host else None
        shown.append(taken(_files.lora_name(item[0], item.hash), entry.adapter, fit, title, report["notes"]))
    report = json.dumps(reports, ensure_ascii=False, indent=2)
    return Applied(model, clip, ", ".join(dict.fromkeys(words)), report, adapters, tuple(shown))


def read_stack(items: Sequence[StackItem], architecture: Architecture | None, blocks: bool = True) -> Stack:
    """The files of the entries, checked for NaN, with their strengths.

    Args:
        items: entries of a ``LORA_STACK``.
        architecture: the model's; None where none is connected.
        blocks: whether block weights mean the model's blocks, otherwise those of each file's own family.
    """
    return Stack(tuple(_entry(item, architecture, blocks) for item in items))


def _entry(item: StackItem, architecture: Architecture | None, own_blocks: bool) -> StackEntry:
    throw_exception_if_processing_interrupted()
    name, model, clip = item
    # The host's own check lets NaN pass: it is neither below the least nor above the greatest.
    strengths = {"model": model, "clip": clip}
    faults = [f"{part!r} is {value}, expected a number" for part, value in strengths.items() if finite(value) is None]
    if faults:
        raise ConfigError(f"strengths of {name!r}", faults)
    path = _files.lora_path(name, item.hash)
    state = os.stat(path)
    adapter = _checked(path, state.st_mtime_ns, state.st_size, architecture.name if architecture else None)
    family = architecture if architecture and own_blocks else ARCHITECTURES.get(adapter.architecture)
    blocks = parse_blocks(item.blocks, family)
    return StackEntry(adapter, Strengths(model, clip, blocks=blocks))


@lru_cache(maxsize=128)
def _checked(path: str, mtime: int, size: int, prefer: str | None) -> Adapter:
    """Loaded, and read through for NaN once as long as the file is the same."""
    adapter = load_adapter(path, prefer=prefer)
    check_finite(adapter)
    return adapter


def _require_fit(fit: BindReport | None) -> None:
    """Raise when the model at hand lacks a module of the file, or has it in another shape."""
    if fit is None or fit.complete:
        return
    names = [*fit.missing, *(misfit.key for misfit in fit.misfits)]
    shapes = [f"shape {list(misfit.got)} where the model has {misfit.expected}" for misfit in fit.misfits]
    raise UnmappedKeysError(fit.file, names, fit.total, [*fit.missing.values(), *shapes][0], "modules")
