"""Settings that a single file lacks: those of a pipeline's folder, or of SD 1, SD 2 and SDXL as their pipelines have
them.

Sources: the published configurations of stable-diffusion-v1-5, stable-diffusion-2-1 and stable-diffusion-xl-base-1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...architectures import Architecture
from ...errors import ConfigError
from ...types import TEXT_ENCODER, TEXT_ENCODER_2
from .folder import read_json

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Configs:
    """What a pipeline's folder would say.

    Args:
        unet, vae, scheduler: settings in diffusers' names. The scheduler's lack ``prediction_type`` where files of
            the family differ.
        encoders: component -> settings of a CLIP in transformers' names.
    """

    unet: Settings
    vae: Settings
    encoders: Mapping[str, Settings]
    scheduler: Settings


def configs_for(architecture: Architecture, pipeline: Path | None, label: str) -> Configs:
    """The folder's settings where it has them, else those that are known.

    Raises:
        ConfigError: neither knows a part.
    """
    known = CONFIGS.get(architecture.name)
    names = [component.name for component in architecture.components[1:]]

    def settings(part: str, other: Settings | None, file: str = "config.json") -> Settings:
        path = pipeline / part / file if pipeline else None
        if path is not None and path.is_file():
            return read_json(path)
        if other is None:
            fault = f"{label} is a {architecture.title}, whose settings are not known here; give a folder with {part}"
            raise ConfigError("model.pipeline", [f"{fault}/{file}"])
        return other

    return Configs(
        settings("unet", known and known.unet),
        settings("vae", known and known.vae),
        {name: settings(name, known and known.encoders[name]) for name in names},
        settings("scheduler", known and known.scheduler, "scheduler_config.json"),
    )


def _vae(**settings: Any) -> Settings:
    return {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
        **settings,
    }


def _scheduler(**settings: Any) -> Settings:
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        **settings,
    }


def _clip(width: int, layers: int, heads: int, activation: str, pad: int) -> Settings:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": pad,
    }


_CLIP_L = _clip(768, 12, 12, "quick_gelu", 49407)
_VAE = _vae(scaling_factor=0.18215)
# Heads of 64 channels on each level.
_SD2_HEADS = [5, 10, 20, 20]

CONFIGS: Mapping[str, Configs] = {
    "sd15": Configs(
        unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        vae=_VAE,
        encoders={TEXT_ENCODER: _CLIP_L},
        scheduler=_scheduler(prediction_type="epsilon"),
    ),
    "sd21": Configs(
        unet={
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": _SD2_HEADS,
            "use_linear_projection": True,
            "upcast_attention": True,  # its values overflow fp16
        },
        vae=_VAE,
        # The condition is what the last layer but one makes, so the last is not there.
        encoders={TEXT_ENCODER: _clip(1024, 23, 16, "gelu", 0)},
        scheduler=_scheduler(),
    ),
    "sdxl": Configs(
        unet={
            "sample_size": 128,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": _SD2_HEADS[:3],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae=_vae(scaling_factor=0.13025, sample_size=1024, force_upcast=True),
        encoders={TEXT_ENCODER: _CLIP_L, TEXT_ENCODER_2: _clip(1280, 32, 20, "gelu", 0)},
        scheduler=_scheduler(prediction_type="epsilon"),
    ),
}
