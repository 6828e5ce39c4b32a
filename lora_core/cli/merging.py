"""``loom merge-to-checkpoint``: a stack into the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..mapping import load_adapter
from ..merge import MergeReport, merge_to_checkpoint, open_checkpoint
from ..merge.rounding import worst
from ..patching import BindReport
from ..stack import Stack, StackEntry
from . import DONE
from .lora_option import LoraOption
from .output import print_json, print_table, progress_bar


def run(
    checkpoint: Path,
    loras: Sequence[LoraOption],
    out: Path,
    *,
    dtype: str,
    text_encoders: bool,
    vae: Path | None,
    strict: bool,
    overwrite: bool,
    json: bool,
) -> int:
    """Merge, with a progress bar; report what was done."""
    source = open_checkpoint(checkpoint)
    stack = Stack(
        tuple(StackEntry(load_adapter(path, prefer=source.architecture.name), numbers) for path, numbers in loras)
    )
    with progress_bar(out.name) as progress:
        report = merge_to_checkpoint(
            source,
            stack,
            out,
            dtype=dtype,
            text_encoders=text_encoders,
            vae=vae,
            strict=strict,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json(report.as_json())
    else:
        _print(report)
    return DONE


def _print(report: MergeReport) -> None:
    rows = [
        ("checkpoint", f"{report.checkpoint} ({report.architecture})"),
        *(("LoRA", _lora(lora)) for lora in report.loras),
        ("tensors changed", f"{report.patched} of {report.tensors}"),
        *(("left out", f"{key}: {reason}") for key, reason in report.left_out.items()),
        ("dtype", report.dtype),
        *(("quantised", f"{count} weights as {format}") for format, count in report.quantised.items()),
        *_rounding(report),
        ("size", f"{report.bytes:,} bytes in {report.seconds:.1f} s"),
    ]
    print_table(str(report.out), rows)


def _rounding(report: MergeReport) -> list[tuple[str, str]]:
    """What rounding took: of the weights, of the change, and where it took most."""
    errors = report.rounding
    if not errors:
        return []
    changes = [error.change for error in errors.values() if error.change is not None]
    of_weight = fmean(error.weight for error in errors.values())
    lines = [f"{of_weight:.2%} of a weight"]
    if changes:
        lines.append(f"{fmean(changes):.2%} of its change, {max(changes):.2%} at the most")
    shown = ((key, errors[key].change) for key in worst(errors, 3))
    most = "; ".join(f"{key}: {'all' if change is None else f'{change:.2%}'}" for key, change in shown)
    return [("lost to rounding", ", ".join(lines)), ("most of it in", most)]


def _lora(lora: BindReport) -> str:
    left = [
        *(
            f"{number} modules for {component}, which is not in the checkpoint"
            for component, number in lora.absent.items()
        ),
        *(f"{name}: {reason}" for name, reason in lora.missing.items()),
        *(f"{misfit.key}: expected {misfit.expected}, got {misfit.got}" for misfit in lora.misfits),
    ]
    return "; ".join([f"{lora.file}: {lora.fitting} of {lora.total} modules", *left])
