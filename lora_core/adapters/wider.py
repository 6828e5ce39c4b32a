"""LoRA that gives a linear layer more inputs: the weight is padded with zeros, then ``up @ down`` is added.

BFL's control LoRAs (FLUX.1 Depth and Canny) do so to ``img_in``, whose inputs they double: half of them are the control
picture's. A file says it as ``reshape_weight``, two integers (out, in), which ComfyUI writes; BFL's own files by the
shape of the down factor alone, which their format calls ``wide_down``: in a factor of any other name more inputs than
the weight has are a fault.

The weight handed to ``apply`` has the new shape already; ``patching`` pads it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..types import Shape
from .base import AdapterType, Delta, Group
from .lora import LoraDelta, build_weight, with_bias


class WiderDelta(LoraDelta):
    """An additive low-rank change of a weight and of inputs that it has not yet."""

    def shape_after(self, shape: Shape) -> Shape:
        return (shape[0], max(shape[1], self.down.shape[1]))


def build(group: Group) -> Mapping[str, Delta]:
    """The deltas of weight and bias; the weight's is an ordinary LoRA's where the layer has all these inputs."""
    role = "wide_down" if "wide_down" in group.roles else "down"
    down, weight = group.roles[role], group.weight
    if len(weight) != 2 or len(down.shape) != 2 or down.shape[1] < weight[1]:
        raise group.misfit(role, ("rank", *weight[1:]))
    shape = (weight[0], down.shape[1])
    if "reshape_weight" in group.roles:
        stated = group.roles["reshape_weight"]
        if stated.numel != 2 or not torch.equal(stated.load().flatten().to(torch.int64), torch.tensor(shape)):
            raise group.misfit("reshape_weight", shape)
    wide = group._replace(roles={**group.roles, "down": down}, shapes={**group.shapes, "weight": shape})
    made = build_weight(wide)
    return with_bias(group, WiderDelta(made.up, made.down, None, made.scale) if shape != weight else made)


_BIAS = frozenset({"up_bias"})
TYPE = AdapterType("lora_wider", "LoRA with more inputs", frozenset({"up", "down", "reshape_weight"}), _BIAS, build)
BFL_TYPE = AdapterType("lora_wider_bfl", "LoRA with more inputs (BFL)", frozenset({"up", "wide_down"}), _BIAS, build)
