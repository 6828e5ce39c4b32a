"""AdaLoRA: ``dW = strength * (alpha / init_r) * up @ diag(lora_E) @ down``, PEFT's LoRA in the form of an SVD.

Zhang et al. 2023 (arXiv 2303.10512). Stored: down (rank, in * kernel area), up (out, rank), ``lora_E`` (rank, 1). The
rank of each layer shrinks while it trains; PEFT goes on dividing by the rank that all began with, ``init_r`` of its
configuration (plus 1e-5, which keeps a rank of 0 from dividing by zero). An alpha of 0 there stands for ``init_r``.
Without a configuration the scale is 1, as for every file of PEFT. Source: PEFT, ``tuners/adalora/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..io import TensorRef
from ..numeric import finite
from .base import AdapterType, Delta, Factors, Group
from .lora import LoraDelta, build_weight


class AdaloraDelta(LoraDelta):
    """An additive low-rank change with a number for each of its ranks.

    Args:
        up, down: stored factors.
        singular: the numbers, (rank, 1).
        scale: alpha / init_r.
    """

    type = "adalora"

    def __init__(self, up: TensorRef, down: TensorRef, singular: TensorRef, scale: float) -> None:
        super().__init__(up, down, None, scale)
        self.singular = singular
        self.tensors = (*self.tensors, singular)

    def factors(self, device: torch.device | str = "cpu") -> Factors:
        """up (out, rank) as stored; down (rank, in * kernel area) times the numbers, float32."""
        up, down, scale = super().factors(device)
        singular = self.singular.load(device, torch.float32).reshape(-1, 1)
        return Factors(up, down.to(torch.float32) * singular, scale)


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from the roles down, up and lora_E."""
    made = build_weight(group)
    singular = group.roles["lora_E"]
    if singular.shape not in ((made.rank, 1), (made.rank,)):
        raise group.misfit("lora_E", (made.rank, 1))
    settings = group.settings or {}
    first, alpha = finite(settings.get("init_r")), finite(settings.get("lora_alpha"))
    if first is None or first < 1 or alpha is None:
        scale = made.scale
    else:
        scale = (alpha if alpha > 0 else first) / (first + 1e-5)
    return {"weight": AdaloraDelta(made.up, made.down, singular, scale)}


TYPE = AdapterType("adalora", "AdaLoRA", frozenset({"down", "up", "lora_E"}), frozenset(), build)
