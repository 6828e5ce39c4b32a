"""The adapters of a denoiser and its text encoders."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...stack import Adapter
from ...types import DENOISER
from ..config.network import NetworkSection, TextEncoderSection
from ..denoiser import Denoiser
from .adapted import AdaptedModule
from .continuing import continue_from
from .deltas import Deltas
from .dropout import seed_torch
from .export import adapter_of
from .group import Group
from .locating import name_of, places


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What is trained.

    Args:
        modules: component -> adapted modules.
        trained: parameters that are trained.
        total: parameters of the adapted models themselves.
        nameless: modules that were wanted and are left out, as no file could name them.
    """

    modules: Mapping[str, int]
    trained: int
    total: int
    nameless: tuple[str, ...]

    def __str__(self) -> str:
        parts = ", ".join(f"{count} in {component}" for component, count in self.modules.items())
        share = 100 * self.trained / self.total if self.total else 0.0
        left = f"; {len(self.nameless)} have no name in the family and are left out" if self.nameless else ""
        return f"modules: {parts or 'none'}; {self.trained:,} parameters of {self.total:,} ({share:.2g} %){left}"


class Network:
    """Adapters in the parts of a denoiser; made by ``attach``, undone by ``detach``."""

    def __init__(self, denoiser: Denoiser, parts: Mapping[str, AdaptedModule], rates: Mapping[str, float]) -> None:
        self.denoiser, self._rates = denoiser, rates
        self.parts = parts
        self._frozen: list[tuple[nn.Parameter, bool]] = []
        self._words: list[nn.Parameter] = []

    @classmethod
    def attach(
        cls,
        denoiser: Denoiser,
        network: NetworkSection,
        text_encoder: TextEncoderSection,
        seed: int,
        learning_rate: float,
    ) -> Network:
        """Freeze the model and put adapters into it.

        Args:
            denoiser: the model.
            network, text_encoder: what to train.
            seed: of the start values, which follow from it and the modules' paths.
            learning_rate: of the denoiser's adapters.

        Raises:
            ConfigError: settings that cannot work on this model.
            MissingExtraError: PEFT is not installed.
        """
        parts: dict[str, AdaptedModule] = {}
        rates: dict[str, float] = {}
        made = cls(denoiser, parts, rates)
        made._freeze()
        try:
            for component, module in denoiser.parts.items():
                of_denoiser = component == DENOISER
                if not (network.train if of_denoiser else text_encoder.train):
                    continue
                section = network if of_denoiser else _for_text_encoder(network, text_encoder)
                where = "network" if of_denoiser else "text_encoder"
                place_of = places(denoiser, component)
                blocks = denoiser.architecture.blocks
                parts[component] = AdaptedModule(module, component, section, place_of, blocks, seed, where)
                rates[component] = learning_rate if of_denoiser else text_encoder.learning_rate
            if network.continue_from and parts:
                continue_from(parts, denoiser, network.continue_from)
        except BaseException:
            made.detach()
            raise
        for row in made._words:
            row.requires_grad_(True)
        return made

    def groups(self) -> list[Group]:
        """For the optimizer: one group a component, two with LoRA+; none where nothing is trained."""
        return [group for name, part in self.parts.items() for group in part.groups(self._rates[name])]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is trained."""
        for part in self.parts.values():
            yield from part.parameters()

    def state(self) -> dict[str, Tensor]:
        """For resuming: ``denoiser.<path>.lora_A.weight``, on the CPU."""
        return {f"{name}.{key}": one for name, part in self.parts.items() for key, one in part.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``; ``ConfigError`` where it is of another network."""
        strange = next((key for key in state if key.partition(".")[0] not in self.parts), None)
        if strange is not None:
            raise ConfigError("the saved state", [f"{strange} is of a part that is not trained now: start afresh"])
        for name, part in self.parts.items():
            own = {key[len(name) + 1 :]: one for key, one in state.items() if key.startswith(f"{name}.")}
            part.load_state(own)

    def apply_dropouts(self, seed: int, step: int, part: int = 0) -> None:
        """Draw who sits out a step: a function of seed and step; neurons also of ``part``, the pass and process."""
        for one in self.parts.values():
            one.apply_dropouts(seed, step)
        seed_torch([one.section for one in self.parts.values()], seed, step, part)

    def train(self, mode: bool = True) -> None:
        """Dropouts on or off; the model itself stays as it is."""
        for part in self.parts.values():
            part.train(mode)

    def adapter(self, dtype: torch.dtype | None = None) -> Adapter:
        """A snapshot as the library's ``Adapter``, to write, to apply, to check."""
        return adapter_of(self.parts, self.denoiser.architecture, partial(name_of, self.denoiser), dtype)

    def deltas(self) -> Deltas:
        """What training did to each module, as PEFT computes it."""
        return Deltas(self.denoiser, self.parts)

    def report(self) -> NetworkReport:
        """Numbers for the user."""
        parts = self.parts
        return NetworkReport(
            {name: len(part.layers) for name, part in parts.items()},
            sum(part.trained for part in parts.values()),
            sum(part.total for part in parts.values()),
            tuple(f"{name}.{path}" for name, part in parts.items() for path in part.nameless),
        )

    @contextmanager
    def scaled(self, strength: float) -> Generator[None, None, None]:
        """A block in which the adapters are at a strength."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.scaled(strength))
            yield

    @contextmanager
    def disabled(self) -> Generator[None, None, None]:
        """A block in which the model is as it was before."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.disabled())
            yield

    def detach(self) -> None:
        """Leave the model as it came, to the last bit."""
        for part in self.parts.values():
            part.detach()
        self.parts = dict[str, AdaptedModule]()
        for parameter, flag in self._frozen:
            parameter.requires_grad_(flag)
        self._frozen.clear()

    def _freeze(self) -> None:
        """All there is; the rows of new words are trained beside the adapters and thaw when these are in."""
        from ..tokens import TokenEmbedding

        for module in self.denoiser.parts.values():
            rows = {id(one.rows) for one in module.modules() if isinstance(one, TokenEmbedding)}
            for parameter in module.parameters():
                self._frozen.append((parameter, parameter.requires_grad))
                if id(parameter) in rows:
                    self._words.append(parameter)
                parameter.requires_grad_(False)


def _for_text_encoder(network: NetworkSection, own: TextEncoderSection) -> NetworkSection:
    """The network's settings with the text encoder's over them; blocks and convolutions are the denoiser's."""
    alpha = own.alpha if own.alpha is not None or own.rank is not None else network.alpha
    return network.model_copy(
        update={
            "rank": own.rank or network.rank,
            "alpha": alpha,
            "targets": own.targets,
            "conv_rank": 0,
            "block_ranks": {},
            "block_alphas": {},
        }
    )
