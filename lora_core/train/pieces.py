"""Everything of a run, built from its settings: model, data, adapter, optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .config import TrainConfig
from .data import TrainingData
from .denoiser import Denoiser
from .ema import Ema
from .events import Watcher
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
    """The parts of a run; ``close`` leaves the model as it came."""

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

    @property
    def pictures_a_step(self) -> int:
        run = self.config.run
        return run.batch * run.accumulate * self.processes.count

    @property
    def text_is_fixed(self) -> bool:
        """Whether conditions can be cached: nothing that text goes through is trained."""
        return self.tokens is None and not self.config.text_encoder.train

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


def build(config: TrainConfig, processes: Processes, denoiser: Denoiser, watcher: Watcher) -> Pieces:
    """Everything but the caches; raises what each part raises, before hours are spent."""
    from .data.templates import captions_of

    folder = RunFolder(Path(config.output.folder), config.output.name)
    _make_prior_pictures(config, denoiser, watcher)
    data = TrainingData.open(
        config.data,
        config.validation,
        seed=config.run.seed,
        size_step=denoiser.size_step,
        latent_step=denoiser.latent_step,
        templates=captions_of(config.tokens),
    )
    tokens = add_tokens(denoiser, config.tokens) if config.tokens.names else None
    network = Network.attach(
        denoiser, config.network, config.text_encoder, config.run.seed, config.optimizer.learning_rate
    )
    groups = [*network.groups(), *([tokens.group()] if tokens is not None else [])]
    if not groups:
        raise ConfigError(config.output.name, ["nothing is set to train: switch on network.train, text_encoder.train"])
    optimizer = build_optimizer(config.optimizer, groups, processes.device)
    parameters = [parameter for group in groups for parameter in group.parameters]
    forward = Forward(
        denoiser,
        config.objective,
        config.data,
        processes,
        config.run.seed,
        config.run.batch * config.run.accumulate * processes.count,
    )
    return Pieces(
        config,
        processes,
        folder,
        denoiser,
        data,
        network,
        tokens,
        groups,
        optimizer,
        build_schedule(config.optimizer, optimizer, config.run.steps),
        Ema(parameters, config.optimizer.ema) if config.optimizer.ema else None,
        forward,
    )


def _make_prior_pictures(config: TrainConfig, denoiser: Denoiser, watcher: Watcher) -> None:
    if config.data.prior.generate:
        from .prior import generate_prior

        generate_prior(denoiser, config.data, config.run.seed, watcher)
