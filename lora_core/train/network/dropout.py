"""Ranks and modules that sit out a step.

    rank_dropout p     dW = s * up diag(m / (1 - p)) down, m of zeros and ones, one a rank
    module_dropout q   the module is the base's own in a step, with probability q; no rescaling
    oft                blocks instead of ranks, those that sit out are the identity; no rescaling

m is drawn once a step for each module, from the seed, the step and the module's path, so every pass and every process
of a step has the same. LoRA, DoRA and OFT get it by forward hooks on PEFT's parts, all masks in one tensor, so a step
costs one copy to the device. (DoRA of a convolution: the norm that divides is that of all ranks.) LoHa and LoKr have
no part that a hook could be on: a module that sits out has scale 0 for the step, and in place of ranks PEFT drops rows
of the product, by torch's own random numbers. Those, and the neuron dropout of torch, are seeded by the step too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config.network import NetworkSection
from ..seeds import fraction, generator, number
from .layers import NAME, Layer


@dataclass(frozen=True, slots=True)
class _Masked:
    """One layer's share of the tensor: numbers for its ranks, and behind them one for DoRA's whole output."""

    layer: Layer
    start: int
    ranks: int


class Dropouts:
    """The masks of one model; without dropout nothing is hooked.

    Args:
        layers: of the model.
        section: with the three probabilities.
        component: for the random numbers.
    """

    def __init__(self, layers: Sequence[Layer], section: NetworkSection, component: str) -> None:
        self.component, self.section = component, section
        self._masked: list[_Masked] = []
        self._handles: list[RemovableHandle] = []
        self._mask = torch.ones(0)
        self._scaled: list[Layer] = []
        if not (section.rank_dropout or section.module_dropout):
            return
        start = 0
        for layer in layers:
            if layer.kind in ("loha", "lokr"):
                self._scaled.append(layer)
                continue
            ranks = layer.rank
            self._masked.append(_Masked(layer, start, ranks))
            start += ranks + (layer.kind == "dora")
        if self._masked:
            self._mask = torch.ones(start, device=self._masked[0].layer.weight.device)
            for one in self._masked:
                self._hook(one)

    def draw(self, seed: int, step: int) -> None:
        """The masks of a step."""
        for layer in self._scaled:
            out = fraction(seed, "module", "dropout", step, self.component, layer.name) < self.section.module_dropout
            layer.peft.scaling[NAME] = 0.0 if out else layer.scale
        if not self._masked:
            return
        rank_dropout = self.section.rank_dropout
        drawn = torch.ones(len(self._mask))
        for one in self._masked:
            of = ("dropout", step, self.component, one.layer.name)
            mine = drawn[one.start : one.start + one.ranks + (one.layer.kind == "dora")]
            if rank_dropout:
                kept = torch.rand(one.ranks, generator=generator(seed, *of)) >= rank_dropout
                mine[: one.ranks] = kept.float() / (1.0 if one.layer.kind == "oft" else 1 - rank_dropout)
            if fraction(seed, "module", *of) < self.section.module_dropout:
                mine.zero_()
        device = self._masked[0].layer.weight.device
        if self._mask.device != device:
            self._mask = self._mask.to(device)  # the model has moved
        if device.type == "cuda":
            drawn = drawn.pin_memory()
        self._mask.copy_(drawn, non_blocking=True)

    def rest(self) -> None:
        """All modules take part again, until the next step is drawn."""
        for layer in self._scaled:
            layer.peft.scaling[NAME] = layer.scale

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._masked.clear()
        self.rest()
        self._scaled.clear()

    def _of(self, one: _Masked) -> Tensor:
        return self._mask[one.start : one.start + one.ranks]

    def _hook(self, one: _Masked) -> None:
        layer = one.layer

        def ranks(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not module.training:
                return None
            # Linear layers have ranks last, convolutions second.
            shape = (-1, *[1] * (output.dim() - 2)) if layer.weight.dim() > 2 else (-1,)
            return output * self._of(one).view(shape).to(output.dtype)

        def blocks(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not module.training:
                return None
            size = layer.weight[0].numel() // one.ranks
            each = self._of(one)[:, None].expand(-1, size).reshape(-1).to(output.dtype)
            return torch.lerp(inputs[0], output, each if output.dim() != 4 else each[:, None, None])

        if layer.kind == "oft":
            self._handles.append(layer.peft.oft_R[NAME].register_forward_hook(blocks))
            return
        self._handles.append(layer.peft.lora_A[NAME].register_forward_hook(ranks))
        if layer.kind == "dora":

            def whole(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
                gate = self._mask[one.start + one.ranks]
                return output * gate.to(output.dtype) if module.training else None

            self._handles.append(layer.peft.lora_magnitude_vector[NAME].register_forward_hook(whole))


def seed_torch(sections: Sequence[NetworkSection], seed: int, step: int, part: int) -> None:
    """Seed torch's own random numbers where one of the adapters draws from them.

    Args:
        part: number of the pass and process, which have neurons of their own.
    """
    for section in sections:
        native = section.type in ("loha", "lokr") and section.rank_dropout
        if section.dropout or native:
            torch.manual_seed(number(seed, "dropout", step, part))  # pyright: ignore[reportUnknownMemberType]
            return
