"""Everything of a run, built from its settings: model, data, adapter, optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ..errors import ConfigError
from ..types import DENOISER
from .borrowed import base_digest
from .config import TrainConfig
from .data import TrainingData
from .denoiser import Denoiser
from .ema import Ema
from .forward import Forward
from .network import Group, Network
from .optimizers import build_optimizer, build_schedule
from .output import RunFolder
from .processes import Processes
from .tokens import TokenEmbeddings, add_tokens

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts of a run; ``close`` takes them out of the model. ``base``: of ``base_digest``."""

    config: TrainConfig
    processes: Processes
    folder: RunFolder
    denoiser: Denoiser
    data: TrainingData
    network: Network
    tokens: TokenEmbeddings | None
    groups: Sequence[Group]
    optimizer: Optimizer
    schedule: LRScheduler
    ema: Ema | None
    forward: Forward
    base: str

    @property
    def pictures_a_step(self) -> int:
        run = self.config.run
        return run.batch * run.accumulate * self.processes.count

    @property
    def text_is_fixed(self) -> bool:
        """Whether conditions can be cached: nothing that text goes through is trained."""
        return self.tokens is None and not self.config.text_encoder.train

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, in the order of the groups."""
        return [parameter for group in self.groups for parameter in group.parameters]

    def averages(self) -> AbstractContextManager[object]:
        """A block in which the parameters are their average, where one is kept."""
        return nullcontext() if self.ema is None else self.ema.swapped()

    def close(self) -> None:
        if self.tokens is not None:
            self.tokens.detach()
        self.network.detach()
        self.data.close()


def load_denoiser(config: TrainConfig, processes: Processes) -> Denoiser:
    """The base model by diffusers, on the run's device."""
    from .diffusers_denoiser import DiffusersDenoiser

    return DiffusersDenoiser.load(
        config.model,
        device=processes.device,
        checkpointing=config.run.checkpointing,
        channels_last=config.run.channels_last,
        attention=config.run.attention,
    )


def build(config: TrainConfig, processes: Processes, denoiser: Denoiser) -> Pieces:
    """Everything but the caches; raises what each part raises, before hours are spent."""
    data = open_data(config, denoiser.size_step, denoiser.latent_step)
    base = base_digest(denoiser)  # before anything is put into it
    tokens: TokenEmbeddings | None = None
    try:
        tokens = add_tokens(denoiser, config.tokens, config.run.seed) if config.tokens.names else None
        network = Network.attach(
            denoiser, config.network, config.text_encoder, config.run.seed, config.optimizer.learning_rate
        )
    except BaseException:
        if tokens is not None:
            tokens.detach()
        data.close()
        raise
    try:
        return _build_on(config, processes, denoiser, base, data, tokens, network)
    except BaseException:
        if tokens is not None:
            tokens.detach()
        network.detach()
        data.close()
        raise


def open_data(config: TrainConfig, size_step: int, latent_step: int) -> TrainingData:
    """The pictures of a run; the steps are the denoiser's."""
    from .data.templates import captions_of

    return TrainingData.open(
        config.data,
        config.validation,
        seed=config.run.seed,
        size_step=size_step,
        latent_step=latent_step,
        templates=captions_of(config.tokens),
        words=config.tokens.names,
    )


def _build_on(
    config: TrainConfig,
    processes: Processes,
    denoiser: Denoiser,
    base: str,
    data: TrainingData,
    tokens: TokenEmbeddings | None,
    network: Network,
) -> Pieces:
    groups = [*network.groups(), *([tokens.group()] if tokens is not None else [])]
    if not groups:
        raise ConfigError(config.output.name, ["nothing is set to train: switch on network.train, text_encoder.train"])
    optimizer = build_optimizer(config.optimizer, groups, processes.device)
    parameters = [parameter for group in groups for parameter in group.parameters]
    pictures = config.run.batch * config.run.accumulate * processes.count
    pieces = Pieces(
        config,
        processes,
        RunFolder.of(config.output),
        denoiser,
        data,
        network,
        tokens,
        groups,
        optimizer,
        build_schedule(config.optimizer, optimizer, config.run.steps),
        Ema(parameters, config.optimizer.ema) if config.optimizer.ema else None,
        Forward(denoiser, config.objective, config.data, processes, config.run.seed, pictures),
        base,
    )
    if config.run.compile:
        cast(Any, denoiser.parts[DENOISER]).compile()
    return pieces
