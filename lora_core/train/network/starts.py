"""Values at the start, functions of the seed and the module's name alone.

| start | down | up |
|---|---|---|
| kaiming | uniform within 1 / sqrt(inputs), PEFT's and kohya's default | 0 |
| gaussian | normal with deviation 1 / rank, as in diffusers' scripts | 0 |
| orthogonal | P Q_1 / 10 and Q_2 P' / 10, where Q_1 and Q_2 are halves of one orthogonal matrix: the product is 0 | |
| pissa | the base's largest singular vectors, which are taken out of the base (Meng et al. 2024, arXiv 2404.02948) | |
| olora | Q and R of the base, taken out of it likewise (Büyükakyüz 2024, arXiv 2406.01775) | |

LoHa, LoKr and OFT begin as PEFT has them: one factor is 0. DoRA's magnitudes are the norms of the base's rows.
"""

from __future__ import annotations

from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..config.network import NetworkSection
from ..seeds import generator
from .layers import NAME, Layer

FROM_THE_BASE = ("pissa", "olora")
# What is 0 at the start; OFT's numbers are 0 for the identity.
_ZERO = frozenset({"lora_B.weight", "hada_w2_b", "lokr_w1", "lokr_w1_a", "oft_R.weight"})


def check_start(section: NetworkSection, where: str) -> None:
    """Raise ``ConfigError`` for what has no meaning together."""
    faults: list[str] = []
    pair = section.type in ("lora", "dora")
    if section.start != "kaiming" and not pair:
        faults.append(
            f"start {section.start} is for lora and dora; {section.type} has a start of its own: leave it out"
        )
    if section.start in FROM_THE_BASE and section.type == "dora":
        faults.append(f"start {section.start} changes the base, which dora's magnitudes are of: use gaussian, or lora")
    if section.start in FROM_THE_BASE and section.continue_from:
        faults.append("continue_from has values already: leave start out")
    if section.lora_plus != 1 and not pair:
        faults.append(f"lora_plus is for lora and dora, which have an up; {section.type} has none: leave it out")
    if section.dropout and not pair:
        faults.append(f"dropout is for lora and dora; {section.type} has rank_dropout and module_dropout")
    if section.rslora and not pair:
        faults.append(f"rslora is for lora and dora; {section.type} has no such scale: leave it out")
    if section.type == "oft" and (section.conv_rank or any(section.block_ranks.values())):
        faults.append("oft has one size of blocks and 1x1 convolutions at most: leave out conv_rank and block_ranks")
    if faults:
        raise ConfigError(where, faults)


def set_start(layer: Layer, section: NetworkSection, seed: int, component: str) -> None:
    """Give a layer its values; the module's weight is changed by pissa and olora (never in place)."""
    for name, tensor in layer.tensors().items():
        if name == "lora_magnitude_vector":
            continue
        values = torch.zeros(tensor.shape)
        if name not in _ZERO:
            random = generator(seed, "start", component, layer.name, name)
            if section.start == "gaussian":
                nn.init.normal_(values, std=1 / layer.rank, generator=random)
            else:
                nn.init.kaiming_uniform_(values, a=sqrt(5), generator=random)
        tensor.data.copy_(values)
    if section.start == "orthogonal":
        _orthogonal(layer, generator(seed, "start", component, layer.name))
    if section.start in FROM_THE_BASE and layer.weight.dim() == 2:
        _from_the_base(layer, section.start)
    if layer.kind == "dora":
        _magnitude(layer)


def _orthogonal(layer: Layer, random: torch.Generator) -> None:
    rank = layer.rank
    if rank % 2:
        raise ConfigError("network.start", [f"orthogonal needs an even rank, {layer.path} has {rank}"])
    down, up = layer.peft.lora_A[NAME].weight, layer.peft.lora_B[NAME].weight
    square = torch.randn(rank, rank, generator=random)
    rows = cast(Tensor, torch.linalg.qr(square).Q)  # pyright: ignore[reportUnknownMemberType]
    inputs = torch.randn(down[0].numel(), rank // 2, generator=random) @ rows[0::2] / 10
    outputs = torch.randn(up.shape[0], rank // 2, generator=random) @ rows[1::2] / 10
    down.data.copy_(inputs.T.reshape(down.shape))
    up.data.copy_(outputs.reshape(up.shape))


def _from_the_base(layer: Layer, start: str) -> None:
    """PEFT's own, on a copy of the weight: PEFT writes into the one that it finds."""
    weight = layer.weight
    if layer.rank > min(weight.shape):
        fault = f"{start} takes a rank of at most {min(weight.shape)} in {layer.path}, got {layer.rank}"
        raise ConfigError("network.rank", [fault])
    if not weight.is_floating_point() or weight.dtype.itemsize == 1:
        raise ConfigError("network.start", [f"{start} changes the base, which is quantised here: use gaussian"])
    weight.data = weight.data.clone()
    if start == "pissa":
        layer.peft.pissa_init(NAME, "pissa")
    else:
        layer.peft.olora_init(NAME)
    for tensor in layer.tensors().values():
        tensor.data = tensor.data.float().contiguous()


@torch.no_grad()
def _magnitude(layer: Layer) -> None:
    """The norm of each row in float32, whatever the base is stored in."""
    magnitude = layer.peft.lora_magnitude_vector[NAME].weight
    down, up = layer.peft.lora_A[NAME].weight.flatten(1), layer.peft.lora_B[NAME].weight.flatten(1)
    moved = layer.weight.detach().float().flatten(1) + layer.scale * (up @ down)
    magnitude.data.copy_(_norms(moved).reshape(magnitude.shape))


def _norms(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1).sqrt()
