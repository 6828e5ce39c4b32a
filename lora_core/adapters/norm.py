"""Differences of norm layers: ``w_norm`` and ``b_norm``, written by LyCORIS with ``train_norm``.

``W' = W + strength * w_norm``, ``b' = b + strength * b_norm``.
"""

from __future__ import annotations

from collections.abc import Mapping

from .base import AdapterType, Delta, Group
from .full import difference


def build(group: Group) -> Mapping[str, Delta]:
    """Deltas of the norm's weight and bias."""
    roles = {"w_norm": "weight", "b_norm": "bias"}
    return {parameter: difference(group, role, parameter) for role, parameter in roles.items() if role in group.roles}


TYPE = AdapterType("norm", "norm difference", frozenset({"w_norm"}), frozenset({"b_norm"}), build)
