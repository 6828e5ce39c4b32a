"""Pipelines of each family with random weights, a megabyte each, as folders in diffusers' layout.

Each function writes one and returns its folder; the weights are always the same. The tokenizer is the demo's. A tiny
model is of no known family: ``TINY_SD1`` and the others say what its modules are called, as the known ones do, and
are what ``DiffusersDenoiser.load(..., architecture=...)`` and ``map_source`` take.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lora_core.architectures import Architecture, clip, unet
from lora_core.types import TEXT_ENCODER, TEXT_ENCODER_2

if TYPE_CHECKING:
    from torch import nn

TOKENIZER = Path(__file__).parents[1] / "demo" / "model" / "tokenizer"
VOCABULARY = 1024
WIDTH = 32  # of the first level, of the text encoder, and of the condition
POOLED = 48  # width of SDXL's second text encoder

_UNET = unet.UNetConfig(
    model_channels=WIDTH, channel_mult=(1, 2), depth=(1, 1), middle_depth=1, context_dim=WIDTH, res_blocks=1
)
_CLIP = clip.ClipConfig(width=WIDTH, layers=2, vocabulary=VOCABULARY)


def _sd1_parts() -> tuple[Any, ...]:
    return (
        unet.build(_UNET),
        clip.build(_CLIP, TEXT_ENCODER, "cond_stage_model.transformer.", ("lora_te", "lora_te1")),
    )


def _sd2_parts() -> tuple[Any, ...]:
    return (
        unet.build(replace(_UNET, linear_projection=True)),
        clip.build(
            _CLIP, TEXT_ENCODER, "cond_stage_model.model.", ("lora_te", "lora_te1"), "open_clip", encoder="clip_h"
        ),
    )


def _sdxl_parts() -> tuple[Any, ...]:
    second = clip.ClipConfig(width=POOLED, layers=2, vocabulary=VOCABULARY, projection=POOLED)
    return (
        unet.build(
            unet.UNetConfig(
                model_channels=WIDTH,
                channel_mult=(1, 2),
                depth=(0, 2),
                middle_depth=2,
                context_dim=WIDTH + POOLED,
                res_blocks=1,
                linear_projection=True,
                label_dim=6 * 8 + POOLED,
            )
        ),
        clip.build(_CLIP, TEXT_ENCODER, "conditioner.embedders.0.transformer.", ("lora_te1", "lora_te")),
        clip.build(
            second, TEXT_ENCODER_2, "conditioner.embedders.1.model.", ("lora_te2",), "open_clip", encoder="clip_g"
        ),
    )


TINY_SD1 = Architecture(name="tiny_sd1", title="Tiny SD 1", build=_sd1_parts, pipeline=("StableDiffusionPipeline",))
TINY_SD2 = Architecture(name="tiny_sd2", title="Tiny SD 2", build=_sd2_parts, pipeline=("StableDiffusionPipeline",))
TINY_SDXL = Architecture(
    name="tiny_sdxl", title="Tiny SDXL", build=_sdxl_parts, pipeline=("StableDiffusionXLPipeline",)
)


def tiny_sd1(folder: Path) -> Path:
    """SD 1's layout: predicts the noise, 1x1 convolutions around attention."""
    parts: dict[str, nn.Module] = {"unet": _unet(), "text_encoder": _text_encoder(WIDTH, "quick_gelu"), "vae": _vae()}
    return _write(folder, "StableDiffusionPipeline", parts, "epsilon")


def tiny_sd2(folder: Path) -> Path:
    """SD 2's: predicts v, linear layers around attention, a head count for each level."""
    model = _unet(use_linear_projection=True, attention_head_dim=[1, 2])
    parts: dict[str, nn.Module] = {"unet": model, "text_encoder": _text_encoder(WIDTH, "gelu"), "vae": _vae()}
    return _write(folder, "StableDiffusionPipeline", parts, "v_prediction")


def tiny_sdxl(folder: Path) -> Path:
    """SDXL's: two text encoders, the pooled text and six sizes as further conditions, no attention at the top."""
    model = _unet(
        use_linear_projection=True,
        attention_head_dim=[1, 2],
        cross_attention_dim=WIDTH + POOLED,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED,
    )
    parts: dict[str, nn.Module] = {
        "unet": model,
        "text_encoder": _text_encoder(WIDTH, "quick_gelu"),
        "text_encoder_2": _text_encoder(POOLED, "gelu", projection=True),
        "vae": _vae(scaling_factor=0.13025, force_upcast=True),
    }
    return _write(folder, "StableDiffusionXLPipeline", parts, "epsilon")


def _unet(**settings: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    values: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (WIDTH, 2 * WIDTH),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "attention_head_dim": 8,
        "cross_attention_dim": WIDTH,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return UNet2DConditionModel(**(values | settings))


def _text_encoder(width: int, activation: str, projection: bool = False) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_act=activation,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=0 if projection else VOCABULARY - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _vae(**settings: Any) -> nn.Module:
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AutoencoderKL(
            block_out_channels=(16,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=4,
            sample_size=64,
            **settings,
        )


def _write(folder: Path, pipeline: str, parts: dict[str, nn.Module], prediction: str) -> Path:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.30.0"}
    for name, part in parts.items():
        part.save_pretrained(folder / name)  # pyright: ignore[reportCallIssue]
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, type(part).__name__]
    scheduler.save_pretrained(folder / "scheduler")
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    if "text_encoder_2" in parts:
        _copy_second_tokenizer(folder / "tokenizer_2")
        index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        index["force_zeros_for_empty_prompt"] = True
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return folder


def _copy_second_tokenizer(folder: Path) -> None:
    """SDXL's second tokenizer fills up with "!", whose id is 0."""
    shutil.copytree(TOKENIZER, folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "!"}), encoding="utf-8")


def as_single_file(folder: Path, architecture: Architecture, target: Path, **more: torch.Tensor) -> Path:
    """The pipeline as a checkpoint of one file, with further tensors."""
    from safetensors.torch import save_file

    from lora_core.merge.folder import open_folder

    checkpoint = open_folder(folder, [architecture])
    save_file({key: checkpoint.load(key).clone() for key in checkpoint.tensors} | more, target)
    return target
