"""Differences of norm layers: ``w_norm`` and ``b_norm``, together or alone, written by LyCORIS with ``train_norm``.

``W' = W + strength * w_norm``, ``b' = b + strength * b_norm``.
"""

from __future__ import annotations

from collections.abc import Mapping

from .base import AdapterType, Delta, Group
from .full import differences


def build(group: Group) -> Mapping[str, Delta]:
    """Deltas of the norm's weight and bias."""
    return differences(group, {"w_norm": group.main, "b_norm": "bias"}, "norm")


TYPE = AdapterType("norm", "norm difference", frozenset({"w_norm"}), frozenset({"b_norm"}), build)
BIAS_TYPE = AdapterType("norm_bias", "norm difference of the bias", frozenset({"b_norm"}), frozenset(), build)
