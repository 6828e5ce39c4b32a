"""Settings that a user gave and that nothing will look at: who wrote them expects an effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .keys import settings
from .train_config import TrainConfig


def _huber(config: TrainConfig) -> bool:
    return config.objective.loss in ("huber", "smooth_l1")


def _changes_tags(config: TrainConfig) -> bool:
    return config.data.shuffle_tags or config.data.tag_dropout > 0


def _has_eps(config: TrainConfig) -> bool:
    from ..optimizers.table import OPTIMIZERS

    return OPTIMIZERS.get(config.optimizer.name).eps is not None


def _scaled(config: TrainConfig) -> bool:
    return config.network.type != "oft"


# setting -> (what uses it, whether that is so). Those whose absence is a fault in ``checks`` are not here.
USES: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    "data.bucket_step": ("data.buckets", lambda c: c.data.buckets),
    "data.max_aspect": ("data.buckets", lambda c: c.data.buckets),
    "data.keep_tokens": ("data.shuffle_tags or data.tag_dropout", _changes_tags),
    "data.mask_floor": ("data.masks", lambda c: c.data.masks != "none"),
    "validation.select": ("validation.folder", lambda c: bool(c.validation.folder)),
    "network.alpha": ("other types than oft", _scaled),
    "network.block_alphas": ("other types than oft", _scaled),
    "network.conv_alpha": ("network.conv_rank", lambda c: c.network.conv_rank > 0),
    "objective.huber_delta": ("objective.loss huber or smooth_l1", _huber),
    "objective.huber_schedule": ("objective.loss huber or smooth_l1", _huber),
    "objective.gamma": (
        "objective.weighting min_snr or soft_min_snr",
        lambda c: c.objective.weighting in ("min_snr", "soft_min_snr"),
    ),
    "objective.timestep_mean": ("objective.timesteps logit_normal", lambda c: c.objective.timesteps == "logit_normal"),
    "objective.timestep_std": (
        "objective.timesteps logit_normal or sigmoid",
        lambda c: c.objective.timesteps in ("logit_normal", "sigmoid"),
    ),
    "objective.shift": ("objective.timesteps shift", lambda c: c.objective.timesteps == "shift"),
    "objective.noise_offset_random": ("objective.noise_offset", lambda c: c.objective.noise_offset > 0),
    "objective.multires_discount": ("objective.multires_noise", lambda c: c.objective.multires_noise > 0),
    "optimizer.eps": ("optimizers that have one: adamw, adamw8bit, prodigy, schedulefree_adamw", _has_eps),
    "optimizer.warmup": ("other schedules than constant", lambda c: c.optimizer.schedule != "constant"),
    "optimizer.cycles": (
        "optimizer.schedule cosine_with_restarts",
        lambda c: c.optimizer.schedule == "cosine_with_restarts",
    ),
    "optimizer.power": ("optimizer.schedule polynomial", lambda c: c.optimizer.schedule == "polynomial"),
    "text_encoder.rank": ("text_encoder.train", lambda c: c.text_encoder.train),
    "text_encoder.alpha": ("text_encoder.train", lambda c: c.text_encoder.train),
    "text_encoder.targets": ("text_encoder.train", lambda c: c.text_encoder.train),
    "text_encoder.learning_rate": ("text_encoder.train", lambda c: c.text_encoder.train),
    "text_encoder.until": ("text_encoder.train", lambda c: c.text_encoder.train),
    "tokens.learning_rate": ("tokens.names", lambda c: bool(c.tokens.names)),
    "tokens.keep_training": ("tokens.names", lambda c: bool(c.tokens.names)),
    "tokens.norm": ("tokens.names", lambda c: bool(c.tokens.names)),
    "tokens.norm_decay": ("tokens.names and tokens.norm", lambda c: bool(c.tokens.names) and c.tokens.norm > 0),
}


def unused(config: TrainConfig, preset: Mapping[str, Any]) -> list[str]:
    """Faults of settings that differ from the default and from the ``preset``'s values, and that nothing uses.

    A preset's own are let be: who changes one setting of it need not know which others went with it.
    """
    faults: list[str] = []
    for name, (user, is_used) in USES.items():
        section, _, key = name.partition(".")
        value = getattr(getattr(config, section), key)
        if value not in (settings()[name].default, preset.get(section, {}).get(key)) and not is_used(config):
            faults.append(f"{name}: has no effect; it is for {user}")
    return faults
