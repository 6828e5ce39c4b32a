"""One model with adapters in it, whatever it is: what the parts of a denoiser and any other module have in common."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..config.network import NetworkSection
from .dropout import Dropouts
from .group import Group
from .injection import check_free, inject, take_out
from .layers import Layer
from .planning import PlaceOf, modules_of, plan
from .starts import check_start, set_start


class AdaptedModule:
    """A module whose own parameters are frozen and whose adapters are trained.

    With pissa and olora the base lacks what the adapters begin with, so that both together are the base again. The
    change is then what the adapters have more than at the start, and ``starts`` keeps that.

    Attributes:
        module: the model.
        component: its name, for groups of parameters and random numbers.
        section: what was asked for.
        layers: path -> layer, in the order of the model.
        nameless: paths that were wanted and left out, as the family has no name for them.
        starts: path -> tensors at the start, for pissa and olora.
    """

    def __init__(
        self,
        module: nn.Module,
        component: str,
        section: NetworkSection,
        place_of: PlaceOf,
        blocks: Sequence[str],
        seed: int,
        where: str = "network",
    ) -> None:
        check_free(module, where)
        check_start(section, where)
        planned = plan(module, section, place_of, blocks, where)
        self.module, self.component, self.section = module, component, section
        self.nameless = planned.nameless
        self._flags = {path: one.requires_grad for path, one in module.named_parameters()}
        self._modes = {path: one.training for path, one in modules_of(module)}
        self._dropouts = Dropouts((), section, component)
        layers = inject(module, planned.plans, section, where)
        self.layers: Mapping[str, Layer] = {layer.path: layer for layer in layers}
        # References, no copies: the starts that change a weight change a copy of it.
        self._bases: dict[str, Tensor] = {}
        self.starts: dict[str, dict[str, Tensor]] = {}
        try:
            for layer in layers:
                self._start(layer, seed)
            self._dropouts = Dropouts(layers, section, component)
        except BaseException:
            self.detach()
            raise

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is trained."""
        for layer in self.layers.values():
            yield from layer.tensors().values()

    def groups(self, learning_rate: float) -> list[Group]:
        """One group, or with LoRA+ two: ``"denoiser"``, ``"denoiser up"``."""
        if self.section.lora_plus == 1:
            return [Group(self.component, list(self.parameters()), learning_rate)]
        ups = [one for layer in self.layers.values() for one in layer.ups()]
        fast = set(map(id, ups))
        rest = [one for one in self.parameters() if id(one) not in fast]
        return [
            Group(self.component, rest, learning_rate),
            Group(f"{self.component} up", ups, learning_rate * self.section.lora_plus),
        ]

    @property
    def trained(self) -> int:
        """Number of parameters that are trained."""
        return sum(one.numel() for one in self.parameters())

    @property
    def total(self) -> int:
        """Number of parameters of the model itself."""
        return sum(one.numel() for one in self.module.parameters()) - self.trained

    def state(self) -> dict[str, Tensor]:
        """All that a run needs to go on: ``<path>.lora_A.weight``, and ``start.<path>.lora_A.weight``."""
        found = {
            f"{path}.{name}": one.detach().cpu().clone().contiguous()
            for path, layer in self.layers.items()
            for name, one in layer.tensors().items()
        }
        for path, tensors in self.starts.items():
            found |= {f"start.{path}.{name}": one.cpu().clone().contiguous() for name, one in tensors.items()}
        return found

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``.

        Raises:
            ConfigError: it is of another network.
        """
        mine = {f"{path}.{name}": one for path, layer in self.layers.items() for name, one in layer.tensors().items()}
        starts = {f"start.{path}.{name}": one for path, ones in self.starts.items() for name, one in ones.items()}
        wanted = {name: tuple(one.shape) for name, one in {**mine, **starts}.items()}
        got = {name: tuple(one.shape) for name, one in state.items()}
        if wanted != got:
            odd = next(name for name in {**wanted, **got} if wanted.get(name) != got.get(name))
            fault = f"{odd}: expected {wanted.get(odd, 'none')}, the state has {got.get(odd, 'none')}"
            raise ConfigError(
                "the saved state", [f"{fault}. It is of another network: start afresh, or with its settings"]
            )
        for name, one in {**mine, **starts}.items():
            one.data.copy_(state[name])
        for path in self.starts:
            self._take_start_out(path)

    def apply_dropouts(self, seed: int, step: int) -> None:
        """Draw who sits out this step."""
        self._dropouts.draw(seed, step)

    def train(self, mode: bool = True) -> None:
        """Dropouts on or off; the model itself stays as it is."""
        self._dropouts.rest()
        for layer in self.layers.values():
            was = layer.base.training
            layer.peft.train(mode)
            layer.base.train(was)

    @torch.no_grad()
    def change(self, path: str) -> Tensor:
        """What training did to the weight of a module, float32, as PEFT computes it."""
        self._dropouts.rest()
        layer = self.layers[path]
        changed = layer.change()
        if path not in self.starts:
            return changed
        with self._at_start(layer):
            return changed - layer.change()

    @contextmanager
    def scaled(self, strength: float) -> Generator[None, None, None]:
        """A block in which the adapters are at a strength, without dropouts."""
        with self._without_dropouts(), ExitStack() as stack:
            for path, layer in self.layers.items():
                if path in self._bases:
                    # At strength 0 the base is whole: W - s * start, and the adapters s times.
                    stack.enter_context(self._base_less_start(layer, strength))
                stack.enter_context(layer.at(strength))
            yield

    @contextmanager
    def disabled(self) -> Generator[None, None, None]:
        """A block in which the model is as it was before."""
        with self._without_dropouts(), ExitStack() as stack:
            for path, layer in self.layers.items():
                if path in self._bases:
                    stack.enter_context(self._base_less_start(layer, 0.0))
                stack.enter_context(layer.off())
            yield

    def detach(self) -> None:
        """Leave the model as it came: its layers in their places, its weights, what wants gradients."""
        self._dropouts.remove()
        for path, weight in self._bases.items():
            self.layers[path].weight.data = weight.to(self.layers[path].weight.device)
        self._bases.clear()
        take_out(self.module)
        for path, one in self.module.named_parameters():
            one.requires_grad_(self._flags.get(path, one.requires_grad))
        for path, one in modules_of(self.module):
            one.training = self._modes.get(path, one.training)

    def _start(self, layer: Layer, seed: int) -> None:
        before = layer.weight.data
        set_start(layer, self.section, seed, self.component)
        if layer.weight.data_ptr() != before.data_ptr():
            self._bases[layer.path] = before
            self.starts[layer.path] = {name: one.detach().clone() for name, one in layer.tensors().items()}

    @contextmanager
    def _without_dropouts(self) -> Generator[None, None, None]:
        modes = {path: layer.peft.training for path, layer in self.layers.items()}
        self.train(False)
        try:
            yield
        finally:
            for path, layer in self.layers.items():
                was = layer.base.training
                layer.peft.train(modes[path])
                layer.base.train(was)

    @contextmanager
    def _base_less_start(self, layer: Layer, strength: float) -> Generator[None, None, None]:
        """A block in which the base is the whole weight less so much of the start."""
        weight = layer.weight
        whole = self._bases[layer.path].to(weight.device)
        before = weight.data
        with self._at_start(layer):
            weight.data = whole if strength == 0 else (whole.float() - strength * layer.change()).to(whole.dtype)
        try:
            yield
        finally:
            weight.data = before

    @contextmanager
    def _at_start(self, layer: Layer) -> Generator[None, None, None]:
        """A block in which the factors are those of the start."""
        tensors = layer.tensors()
        before = {name: one.data for name, one in tensors.items()}
        for name, one in tensors.items():
            one.data = self.starts[layer.path][name].to(one.device)
        try:
            yield
        finally:
            for name, one in tensors.items():
                one.data = before[name]

    def _take_start_out(self, path: str) -> None:
        layer = self.layers[path]
        whole = self._bases[path].to(layer.weight.device)
        with torch.no_grad(), self._at_start(layer):
            layer.weight.data = (whole.float() - layer.change()).to(whole.dtype)
