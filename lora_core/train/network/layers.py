"""PEFT's layers as this library sees them: what is trained in one, its scale, its change, its strength.

    lora, dora   W + s * up @ down, dora with a magnitude a row           ``lora_A`` is down, ``lora_B`` is up
    loha         W + s * (w1_a w1_b) * (w2_a w2_b)
    lokr         W + s * kron(w1, w2)
    oft          W R^T, R orthogonal in blocks                            no scale

Source: PEFT's tuners; the formulas stand with the types in ``adapters``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["lora", "dora", "loha", "lokr", "oft"]

# PEFT's name of our adapter in every layer.
NAME = "loom"
_FACTORS: Mapping[Kind, tuple[str, ...]] = {
    "lora": ("lora_A", "lora_B"),
    "dora": ("lora_A", "lora_B", "lora_magnitude_vector"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    "oft": ("oft_R",),
}
# Rows of R at once while PEFT's rotation is read out.
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Layer:
    """An adapted module.

    Args:
        path: in its model.
        kind: of the adapter.
        peft: PEFT's layer, which calls the module itself as its ``base_layer``.
        name: that random numbers of it follow from.
    """

    path: str
    kind: Kind
    peft: Any
    name: str

    @property
    def base(self) -> nn.Module:
        """The frozen module."""
        return self.peft.get_base_layer()

    @property
    def weight(self) -> nn.Parameter:
        """Its weight."""
        return self.peft.get_base_layer().weight

    def tensors(self) -> dict[str, nn.Parameter]:
        """PEFT's name of a tensor in a file -> parameter: ``{"lora_A.weight": ..., "lora_B.weight": ...}``."""
        found: dict[str, nn.Parameter] = {}
        for name in _FACTORS[self.kind]:
            holder = getattr(self.peft, name)
            if NAME not in holder:
                continue
            one = holder[NAME]
            if isinstance(one, nn.Parameter):
                found[name] = one
            else:
                found[name if name == "lora_magnitude_vector" else f"{name}.weight"] = one.weight
        return found

    def ups(self) -> list[nn.Parameter]:
        """What LoRA+ moves faster."""
        return [self.peft.lora_B[NAME].weight] if self.kind in ("lora", "dora") else []

    @property
    def rank(self) -> int:
        return int(self.peft.r[NAME])

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) with rsLoRA; 1 for OFT. Whatever the layer's strength is just now."""
        if self.kind == "oft":
            return 1.0
        if self.kind in ("loha", "lokr"):
            return float(self.peft.alpha[NAME]) / self.rank
        rank = sqrt(self.rank) if self.peft.use_rslora[NAME] else self.rank
        return float(self.peft.lora_alpha[NAME]) / rank

    @torch.no_grad()
    def change(self) -> Tensor:
        """What PEFT adds to the base layer's weight, float32, in its shape, as PEFT itself computes it.

        For DoRA and OFT, which make another weight, in float64: the difference to the base is small beside it.
        """
        if self.kind == "oft":
            return (self._rotated() - self.weight.detach().double()).float()
        if self.kind == "dora":
            return (self._merged() - self.weight.detach().double()).float()
        return self.peft.get_delta_weight(NAME).detach().float()

    def _merged(self) -> Tensor:
        """The weight that PEFT merges; the module's own is put back as it was."""
        weight = self.weight
        before = weight.data
        try:
            weight.data = before.double()
            self.peft.merge()
            merged = weight.data.clone()
            self.peft.unmerge()
        finally:
            weight.data = before
            self.peft.merged_adapters.clear()
        return merged

    def _rotated(self) -> Tensor:
        """W R^T, R read from PEFT's forward pass by rotating the unit vectors, some at a time."""
        rotation = self.peft.oft_R[NAME]
        weight = self.weight.detach().double()
        rows = weight.flatten(1)
        inputs = rows.shape[1]
        out = torch.empty_like(rows)
        for start in range(0, inputs, _ROWS):
            count = min(_ROWS, inputs - start)
            units = torch.zeros(count, inputs, device=rows.device)
            units[torch.arange(count), torch.arange(count) + start] = 1
            seen = units if weight.dim() == 2 else units[:, :, None, None]
            out[:, start : start + count] = rows @ rotation(seen).reshape(count, inputs).double().T
        return out.reshape(weight.shape)

    @contextmanager
    def at(self, strength: float) -> Generator[None, None, None]:
        """A block in which the layer changes its module by so much; DoRA and OFT go part of the way to W'.

        ``W + strength * (W' - W)``, as patches do it: what DoRA adds to the output and what OFT does to the input is
        linear in W' - W, so a hook can scale it.
        """
        if self.kind in ("dora", "oft"):
            target = self.peft.lora_magnitude_vector[NAME] if self.kind == "dora" else self.peft.oft_R[NAME]

            def scale(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
                return output * strength if self.kind == "dora" else torch.lerp(inputs[0], output, strength)

            handle = target.register_forward_hook(scale)
            try:
                yield
            finally:
                handle.remove()
            return
        scale_before = self.peft.scaling[NAME]
        self.peft.scaling[NAME] = scale_before * strength
        try:
            yield
        finally:
            self.peft.scaling[NAME] = scale_before

    @contextmanager
    def off(self) -> Generator[None, None, None]:
        """A block in which the module works without the adapter. PEFT's switch changes what wants gradients; that is
        put back."""
        wanted = [(one, one.requires_grad) for one in self.tensors().values()]
        self.peft.enable_adapters(False)
        try:
            yield
        finally:
            self.peft.enable_adapters(True)
            for one, flag in wanted:
                one.requires_grad_(flag)
