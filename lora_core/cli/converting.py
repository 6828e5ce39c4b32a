"""``loom convert``: a LoRA in another format."""

from __future__ import annotations

from pathlib import Path

from ..convert import ConvertReport, convert_lora
from . import DONE
from .output import counts, print_json, print_table, progress_bar


def run(
    file: Path, out: Path, *, format: str, dtype: str, architecture: str | None, overwrite: bool, json: bool
) -> int:
    """Convert, with a progress bar; report what was done."""
    with progress_bar(out.name) as progress:
        report = convert_lora(
            file, out, format, dtype=dtype, architecture=architecture, overwrite=overwrite, progress=progress
        )
    if json:
        print_json(report.as_json())
    else:
        _print(report)
    return DONE


def _print(report: ConvertReport) -> None:
    size = sum(file.stat().st_size for file in report.files)
    rows = [
        ("from", f"{report.source} ({report.source_format})"),
        ("format", report.format),
        ("dtype", report.dtype),
        ("modules", counts(report.counts)),
        *(("left out", f"{key}: {reason}") for key, reason in report.left_out.items()),
        ("size", f"{size:,} bytes in {report.seconds:.1f} s"),
    ]
    print_table(", ".join(str(file) for file in report.files), rows)
