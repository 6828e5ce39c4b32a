"""PEFT's BOFT: stages of block rotations of inputs, ``W' = W B^T * boft_s``, ``B = B[m-1] ... B[0]``.

Liu et al. 2023 (arXiv 2311.06243). Stored: ``boft_R`` (stages, blocks, b, b), blocks * b = in * kernel area, and
``boft_s``, a factor for each output, (out, 1), or (1, out) for convolutions. A block's rotation is the Cayley
transform ``(I - S) (I + S)^-1``, ``S = (X - X^T) / 2``. Stage i takes inputs in groups of 2^i * b and joins runs of
b / 2 that are half a group apart to blocks. (LyCORIS's BOFT, ``boft``, turns outputs and pairs them one by one.)
PEFT has no strength for BOFT. Source: PEFT, ``tuners/boft/layer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch

from ..io import TensorRef
from .base import AdapterType, Delta, Group
from .orthogonal import RotationDelta, cayley, skew, turn


class PeftBoftDelta(RotationDelta):
    """A butterfly of rotated inputs, and a factor for each output."""

    type = "peft-boft"

    def __init__(self, blocks: TensorRef, factors: TensorRef) -> None:
        self.blocks, self.row_factors, self.tensors = blocks, factors, (blocks, factors)
        self.size = blocks.shape[2]

    def rotate(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        rotations = cayley(skew(self.blocks.load(weight.device, weight.dtype)) / -2)
        turned = weight.flatten(1).T
        for stage, rotation in enumerate(rotations):
            if stage == 0:
                turned = turn(rotation, turned)
                continue
            half, runs = self.size // 2, 2**stage
            joined = turned.reshape(-1, 2, runs, half, weight.shape[0]).transpose(1, 2)
            mixed = turn(rotation, joined.reshape(turned.shape))
            turned = mixed.reshape(-1, runs, 2, half, weight.shape[0]).transpose(1, 2).reshape(turned.shape)
        factors = self.row_factors.load(weight.device, weight.dtype).reshape(-1, 1)
        return (turned.T * factors.narrow(0, start, weight.shape[0])).reshape(weight.shape)

    def apart(self, row: int) -> bool:
        return True


def build(group: Group) -> Mapping[str, Delta]:
    """The weight's delta from boft_R and boft_s."""
    blocks, factors = group.roles["boft_R"], group.roles["boft_s"]
    inputs = prod(group.weight[1:])
    shape = blocks.shape
    if len(group.weight) < 2 or len(shape) != 4 or 0 in shape or shape[2] != shape[3] or shape[1] * shape[2] != inputs:
        raise group.misfit("boft_R", f"(stages, blocks, size, size), blocks * size = {inputs}")
    stages, _, size, _ = shape
    if stages > 1 and (size % 2 or inputs % (2 ** (stages - 1) * size)):
        raise group.misfit("boft_R", f"an even size, and at most as many stages as halve {inputs} inputs evenly")
    out = group.weight[0]
    if factors.shape not in ((out, 1), (1, out)):
        raise group.misfit("boft_s", (out, 1))
    return {"weight": PeftBoftDelta(blocks, factors)}


TYPE = AdapterType("peft-boft", "BOFT of PEFT", frozenset({"boft_R", "boft_s"}), frozenset(), build)
