"""What a merge did, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..inspect import misfit_json
from ..patching import BindReport
from .rounding import Rounding, rounding_json


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
        left_out: tensors of a pipeline folder, and of the LoRAs' files, that the new file has no place for -> reason.
        rounding: key of a patched tensor -> what rounding took from it; without those in float32, which lose nothing.
        quantised: name of a quantisation -> weights of the source that are kept in it.
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
    rounding: Mapping[str, Rounding] = field(default_factory=dict[str, Rounding])
    quantised: Mapping[str, int] = field(default_factory=dict[str, int])

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
            "quantised": dict(self.quantised),
            "rounding": rounding_json(self.rounding),
        }


def _lora_json(report: BindReport) -> dict[str, object]:
    return {
        "file": report.file,
        "modules": {"total": report.total, "fitting": report.fitting},
        "missing": dict(report.missing),
        "misfit": [misfit_json(misfit) for misfit in report.misfits],
        "absent": dict(report.absent),
    }
