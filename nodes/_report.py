"""The report of the loaders: what ``inspect`` says of a file, and how it fits the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..lora_core import Adapter, StackEntry
from ..lora_core.architectures import Architecture
from ..lora_core.inspect import describe, misfit_json
from ..lora_core.model_family import why_not
from ..lora_core.patching import BindReport
from ..lora_core.rows import StackItem
from ._embeddings import Embedding

# Inspect LoRA has them: reading the whole file for its hashes, or a training's tag counts, is not for every run.
LEFT_OUT = ("metadata",)


def lora_report(
    path: str, item: StackItem, entry: StackEntry, fit: BindReport | None, architecture: Architecture | None
) -> dict[str, Any]:
    """One object per LoRA.

    Args:
        path: of the file, for what stands beside it.
        item: as the graph has it.
        entry: as it was loaded.
        fit, architecture: what the model took, and its family; None where no model is connected.
    """
    report: dict[str, Any] = {
        key: value for key, value in describe(entry.adapter, path=path).items() if key not in LEFT_OUT
    }
    strengths = entry.strengths
    report["strengths"] = {"model": strengths.model, "clip": strengths.clip, "blocks": dict(strengths.blocks)}
    if fit is not None and architecture is not None:
        report["fit"] = {
            "model": architecture.name,
            "modules": {"total": fit.total, "fitting": fit.fitting},
            "missing": dict(fit.missing),
            "misfit": [misfit_json(misfit) for misfit in fit.misfits],
            "absent": dict(fit.absent),
        }
    report["notes"] = [*report.get("notes", []), *_notes(item, entry)]
    return report


def taken(
    name: str, adapter: Adapter, fit: BindReport | None, model: str | None, notes: Sequence[str]
) -> dict[str, Any]:
    """The little of a report that the page shows beside a row.

    Args:
        name: in the loras folders.
        fit, model: what the model took, and its family's title; None where no model is connected.
        notes: of the report.

    Returns:
        ``{"lora", "model", "matched", "total", "missing", "misfit", "absent", "reason", "notes"}``: modules of the file
        that the model took, all in the file, those that the model has not, parameters that it has in another shape,
        component that is not connected -> modules for it, why the first of those left out was left out ("" where none
        was). Without a model: those that are of the file's own family.
    """
    if fit is None:
        matched = len({(module.target.module, module.target.slice) for module in adapter.report.modules})
        left = adapter.report.left
        counts: dict[str, Any] = {"matched": matched, "total": matched + len(left), "missing": len(left), "misfit": 0}
        reason = next(iter(left.values()), "")
        return {"lora": name, "model": None, **counts, "absent": {}, "reason": reason, "notes": list(notes)}
    counts = {
        "matched": fit.fitting,
        "total": fit.total,
        "missing": len(fit.missing),
        "misfit": len(fit.misfits),
        "absent": dict(fit.absent),
        "reason": why_not(fit),
    }
    return {"lora": name, "model": model, **counts, "notes": list(notes)}


def _notes(item: StackItem, entry: StackEntry) -> list[str]:
    notes: list[str] = []
    if item.schedule:
        notes.append(f"the schedule {item.schedule} is not applied: the strength is the same at every step")
    if not entry.strengths.model and not entry.strengths.clip:
        notes.append("strength 0: it changes nothing")
    return notes


def embeddings_report(report: dict[str, Any], given: Sequence[Embedding]) -> dict[str, Any]:
    """What ``inspect`` says of a file's embeddings, and what a prompt says for each; nothing for a file without."""
    return (
        {
            "embeddings": {
                embedding.token: {
                    **report["embeddings"][embedding.token],
                    "prompt": embedding.prompt,
                    "notes": list(embedding.notes),
                }
                for embedding in given
            }
        }
        if given
        else {}
    )
