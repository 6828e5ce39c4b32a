"""A unit in the roles and the scale that a format can write.

| role | where the format has none | exact |
|---|---|---|
| ``magnitude`` (out,) | ``dora_scale`` (out, 1, ...), and the other way round where it is per output | yes |
| ``mid`` (Tucker) | multiplied into ``down`` | rounded once |
| ``up_bias`` | ``diff_b``, times the scale | rounded once |
| alpha / rank | factors take it: ``down`` a power of two, ``up`` the rest | yes for powers of two |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import frexp, prod

import torch

from ..errors import ConversionError
from ..formats import Writing
from ..io.dtypes import TORCH_DTYPES, itemsize
from .units import Stored, Unit


class Speller:
    """Brings units into the roles of one format.

    Args:
        file: name of the file, for errors.
        title: of the format, for errors.
        writing: of the format.
    """

    def __init__(self, file: str, title: str, writing: Writing) -> None:
        self.file, self.title, self.writing = file, title, writing

    def spell(self, unit: Unit) -> Unit:
        """The same change in roles that the format has.

        Raises:
            ConversionError: there is no way to say it.
        """
        known = self.writing.suffixes
        for role, change in _OTHERWISE.items():
            if role in unit.roles and role not in known:
                unit = change(self, unit)
        strange = next((role for role in unit.roles if role not in known), None)
        if strange is not None:
            raise self.fault(unit, f"it has no {strange}")
        unit = _shaped(unit)
        if self.writing.scale == "alpha":
            return _with_alpha(unit)
        return _in_factors(unit) if self.writing.scale == "factors" else unit

    def fault(self, unit: Unit, why: str) -> ConversionError:
        return ConversionError(self.file, self.title, unit.kind, unit.name, why)


def _to_dora_scale(speller: Speller, unit: Unit) -> Unit:
    roles = dict(unit.roles)
    magnitude = roles.pop("magnitude")
    roles["dora_scale"] = magnitude.reshaped((unit.rows, *[1] * (len(unit.weight) - 1)))
    return replace(unit, roles=roles)


def _to_magnitude(speller: Speller, unit: Unit) -> Unit:
    roles = dict(unit.roles)
    stored = roles.pop("dora_scale")
    if stored.shape[:1] != (unit.rows,) or prod(stored.shape) != unit.rows:
        raise speller.fault(unit, "its magnitudes are per input, and this format knows only those per output")
    kernel = len(unit.weight) - 2
    roles["magnitude"] = stored.reshaped((1, unit.rows, *[1] * kernel) if kernel else (unit.rows,))
    return replace(unit, roles=roles)


def _without_mid(speller: Speller, unit: Unit) -> Unit:
    roles = dict(unit.roles)
    mid, down = roles.pop("mid"), roles["down"]
    shape = (mid.shape[0], *unit.weight[1:])

    def multiply(first: torch.Tensor) -> torch.Tensor:
        return torch.einsum("rs...,si->ri...", mid.wide().to(first.dtype), first.flatten(1)).reshape(shape)

    return replace(unit, roles={**roles, "down": down.computed(shape, multiply)})


def _to_diff_b(speller: Speller, unit: Unit) -> Unit:
    roles = dict(unit.roles)
    if "diff_b" in roles:
        raise speller.fault(unit, "it has a bias twice")
    bias = roles.pop("up_bias")
    roles["diff_b"] = bias if unit.scale == 1 else bias.computed(bias.shape, lambda tensor: tensor * unit.scale)
    return replace(unit, roles=roles)


# role that a format may lack -> the same in other roles.
_OTHERWISE: dict[str, Callable[[Speller, Unit], Unit]] = {
    "magnitude": _to_dora_scale,
    "dora_scale": _to_magnitude,
    "mid": _without_mid,
    "up_bias": _to_diff_b,
}


def _shaped(unit: Unit) -> Unit:
    """Factors in the dimensions of the weight, as readers make their layers: files have convolutions flattened too."""
    if not {"down", "up"} <= unit.roles.keys() or "mid" in unit.roles or "reshape_weight" in unit.roles:
        return unit
    down, up = unit.roles["down"], unit.roles["up"]
    ones = [1] * (len(unit.weight) - 2)
    return replace(
        unit,
        roles={
            **unit.roles,
            "down": down.reshaped((down.shape[0], *unit.weight[1:])),
            "up": up.reshaped((*up.shape[:2], *ones)),
        },
    )


def _with_alpha(unit: Unit) -> Unit:
    """An alpha always, so that no reader has to know what a missing one means."""
    if unit.rank is not None:
        return replace(unit, roles={**unit.roles, "alpha": Stored.number(unit.scale * unit.rank)})
    if unit.scale == 1:
        return unit
    # LoKr of two whole matrices: readers take no alpha there, so the smaller matrix takes the scale.
    whole = unit.roles["lokr_w1"]
    return replace(
        unit, roles={**unit.roles, "lokr_w1": whole.computed(whole.shape, lambda tensor: tensor * unit.scale)}
    )


def _in_factors(unit: Unit) -> Unit:
    """Scale 1. Each factor takes half of the exponent, or small numbers would fall out of fp16's range."""
    if unit.scale == 1 or unit.rank is None:
        return unit
    to_down = 2.0 ** (frexp(unit.scale)[1] // 2) if unit.scale else 1.0
    to_up = unit.scale / to_down
    down, up = unit.roles["down"], unit.roles["up"]
    roles = {
        **unit.roles,
        "down": down.computed(down.shape, lambda tensor: tensor * to_down),
        "up": up.computed(up.shape, lambda tensor: tensor * to_up),
    }
    if "up_bias" in roles:
        bias = roles["up_bias"]
        roles["up_bias"] = bias.computed(bias.shape, lambda tensor: tensor * unit.scale)
    return replace(unit, roles=roles, scale=1.0)


def cast(stored: Stored, role: str, dtype: str) -> Stored:
    """In the chosen type: every floating tensor but alphas, which are single numbers, and DoRA's magnitudes where the
    type is narrower. Those are one number a row, of the size of the weight's norm: rounded to fp16 they would move the
    weight by as much as a whole training may."""
    if role == "alpha" or not TORCH_DTYPES[stored.dtype].is_floating_point:
        return stored
    if role in ("dora_scale", "magnitude") and itemsize(dtype) < itemsize(stored.dtype):
        return stored
    return stored.cast(dtype)
