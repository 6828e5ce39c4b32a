"""The tensors of a module that is made of rows of others. Exact: nothing is approximated, ranks add up.

Rows of one unit: the up factor, differences, biases and magnitudes are cut, the down factor stays as it is. Several
units: up factors stand side by side, each in its rows, zeros elsewhere, and the down factors one below the other:

    [up_q  0     0   ]   [down_q]   [up_q down_q]
    [0     up_k  0   ] @ [down_k] = [up_k down_k]
    [0     0     up_v]   [down_v]   [up_v down_v]

Where their scales differ, the ups take the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..errors import ConversionError
from ..io.dtypes import TORCH_DTYPES
from ..types import Shape
from .places import Assembly, Segment
from .units import Stored, Unit

# Roles with a row for each output, and those that all rows share.
_OF_ROWS = frozenset(
    {"up", "up_bias", "diff", "diff_b", "w_norm", "b_norm", "set_weight", "magnitude", "dora_scale"}
    | {"hada_w1_a", "hada_w2_a"}
)
_SHARED = frozenset({"down", "mid", "hada_w1_b", "hada_w2_b"})
# Rows that no unit has are no change as zeros of these; of others nothing is.
_ZEROS = frozenset({"up", "up_bias", "diff", "diff_b", "w_norm", "b_norm", "hada_w1_a", "hada_w2_a"})
_JOINED = frozenset({"down", "up", "up_bias", "diff_b", "magnitude", "dora_scale"})


def gather(file: str, title: str, made: Assembly) -> Unit:
    """One unit for a module of the target.

    Raises:
        ConversionError: the type's rows do not change apart, or cannot be joined.
    """
    units = made.units
    first = units[0]
    if made.same:
        return first
    weight = (made.rows, *first.weight[1:]) if first.weight else ()
    whole = replace(first, parts=made.parts, weight=weight)
    if len(units) == 1:
        return replace(whole, roles={role: _cut(file, title, made, first, role) for role in first.roles})
    for unit in units:
        _check_joined(file, title, made, unit)
    return _join(whole, made, units)


def _cut(file: str, title: str, made: Assembly, unit: Unit, role: str) -> Stored:
    """A role of one unit's rows."""
    stored = unit.roles[role]
    tucker = "hada_t1" in unit.roles
    if role in _SHARED and not tucker:
        return stored
    if role not in _OF_ROWS or tucker or stored.shape[:1] != (unit.rows,):
        raise ConversionError(file, title, unit.kind, unit.name, f"rows of it ({role}) do not change apart")
    if role not in _ZEROS and _gaps(made.segments, made.rows):
        raise ConversionError(file, title, unit.kind, unit.name, f"{made.path} has rows that the file says nothing of")
    return _rows(stored, made.segments, made.rows)


def _rows(stored: Stored, segments: Sequence[Segment], rows: int) -> Stored:
    """Rows of a tensor at their new places, zeros elsewhere."""
    shape = (rows, *stored.shape[1:])

    def load() -> torch.Tensor:
        tensor = stored.load()
        if len(segments) == 1 and segments[0].length == rows:
            return tensor.narrow(0, segments[0].source, rows)
        placed = tensor.new_zeros(shape)
        for one in segments:
            placed[one.target : one.target + one.length] = tensor[one.source : one.source + one.length]
        return placed

    return Stored(shape, stored.dtype, load)


def _check_joined(file: str, title: str, made: Assembly, unit: Unit) -> None:
    """Only pairs of factors can stand side by side; with magnitudes only where each row has exactly one."""
    first = made.units[0]
    strange = sorted(set(unit.roles) - _JOINED)
    if strange or "down" not in unit.roles:
        why = f"it would have to be joined with others to {made.path}, which only LoRA can be"
        raise ConversionError(file, title, unit.kind, unit.name, why)
    magnitudes = [role for role in ("magnitude", "dora_scale") if role in unit.roles]
    if (set(magnitudes) | set(first.roles)) & {"magnitude", "dora_scale"}:
        per_row = all(unit.roles[role].shape[:1] == (unit.rows,) for role in magnitudes)
        same = all((role in unit.roles) == (role in first.roles) for role in ("magnitude", "dora_scale"))
        if not per_row or not same or _gaps(made.segments, made.rows) or _overlaps(made.segments):
            why = f"{made.path}, which it becomes part of, needs a magnitude for each of its rows"
            raise ConversionError(file, title, unit.kind, unit.name, why)


def _join(whole: Unit, made: Assembly, units: Sequence[Unit]) -> Unit:
    ranks = [unit.roles["down"].shape[0] for unit in units]
    scale = units[0].scale or 1.0
    dtype = _promoted([unit.roles[role].dtype for unit in units for role in ("down", "up")])
    inner = units[0].roles["down"].shape[1:]
    total, rows = sum(ranks), made.rows
    kernel = units[0].roles["up"].shape[2:]
    where = [[one for one in made.segments if one.unit is unit] for unit in units]

    def down() -> torch.Tensor:
        parts = [unit.roles["down"].load().to(TORCH_DTYPES[dtype]).reshape(-1, *inner) for unit in units]
        return torch.cat(parts)

    def up() -> torch.Tensor:
        blocks: list[torch.Tensor] = []
        for unit, segments in zip(units, where, strict=True):
            block = _rows(unit.roles["up"].reshaped(unit.roles["up"].shape[:2]), segments, rows).load()
            if unit.scale != scale:
                block = block.to(torch.float32) * (unit.scale / scale)
            blocks.append(block.to(TORCH_DTYPES[dtype]))
        return torch.cat(blocks, dim=1).reshape(rows, total, *kernel)

    roles = {
        "down": Stored((total, *inner), dtype, down),
        "up": Stored((rows, total, *kernel), dtype, up),
        **_vectors(units, where, rows, scale),
    }
    return replace(whole, roles=roles, rank=total, scale=scale)


def _vectors(
    units: Sequence[Unit], where: Sequence[Sequence[Segment]], rows: int, scale: float
) -> Mapping[str, Stored]:
    """Biases and magnitudes of joined units: each in its rows, sums where several have the same."""
    made: dict[str, Stored] = {}
    for role in ("up_bias", "diff_b", "magnitude", "dora_scale"):
        having = [(unit, segments) for unit, segments in zip(units, where, strict=True) if role in unit.roles]
        if having:
            made[role] = _sum(role, having, rows, scale)
    return made


def _sum(role: str, having: Sequence[tuple[Unit, Sequence[Segment]]], rows: int, scale: float) -> Stored:
    dtype = _promoted([unit.roles[role].dtype for unit, _ in having])
    shape: Shape = (rows, *having[0][0].roles[role].shape[1:])

    def load() -> torch.Tensor:
        total = torch.zeros(shape)
        for unit, segments in having:
            factor = unit.scale / scale if role == "up_bias" else 1.0
            total = total + _rows(unit.roles[role], segments, rows).wide().reshape(shape) * factor
        return total.to(TORCH_DTYPES[dtype])

    return Stored(shape, dtype, load)


def _promoted(dtypes: Sequence[str]) -> str:
    """A type that holds all of these: one of theirs, or float32."""
    return dtypes[0] if len(set(dtypes)) == 1 else "F32"


def _gaps(segments: Sequence[Segment], rows: int) -> bool:
    """Whether rows are left that no segment makes."""
    end = 0
    for one in sorted(segments, key=lambda segment: segment.target):
        if one.target > end:
            return True
        end = max(end, one.target + one.length)
    return end < rows


def _overlaps(segments: Sequence[Segment]) -> bool:
    return sum(one.length for one in segments) > len(
        {row for one in segments for row in range(one.target, one.target + one.length)}
    )
