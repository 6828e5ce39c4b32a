"""The demo model's architecture, and its folder in diffusers' layout.

SD1.5's module names, narrower and with two levels. Hosts of SD1.5 fix 8 heads and 32 norm groups,
so both are kept here. All weights together stay under 12 MB in fp16.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.build_tokenizer import MAX_LENGTH, VOCABULARY
from lora_core.train.hushed import hushed
from lora_core.train.noise_schedule import DiscreteSchedule

with hushed():
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MODEL = Path(__file__).parent / "model"
LATENT_CHANNELS = 16
LATENT_SIZE = 8
CONTEXT = 128
# SD's noise.
STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


@dataclass(slots=True)
class Demo:
    """The parts of the pipeline."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderKL

    @property
    def latent_scale(self) -> float:
        return float(self.vae.config["scaling_factor"])

    def tokens(self, captions: list[str]) -> Tensor:
        """Token ids padded to CLIP's length, (n, 77)."""
        return self.tokenizer(
            captions, padding="max_length", max_length=MAX_LENGTH, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip

    def context(self, captions: list[str]) -> Tensor:
        """What the UNet attends to: the last hidden state, (n, 77, 128)."""
        return self.text_encoder(self.tokens(captions)).last_hidden_state

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, 64, 64) in [-1, 1] -> scaled latents (n, 16, 8, 8), without sampling."""
        parts = [self.vae.encode(part).latent_dist.mean for part in images.split(32)]
        return torch.cat(parts) * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (n, 16, 8, 8) -> pictures (n, 3, 64, 64) in [-1, 1]."""
        parts = (latents / self.latent_scale).split(32)
        return torch.cat([self.vae.decode(part).sample for part in parts]).clamp(-1, 1)


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        # In SD1.5's configuration this number is the count of heads, whatever its name says.
        attention_head_dim=8,
        cross_attention_dim=CONTEXT,
        norm_num_groups=32,
    )


def build_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=CONTEXT,
            intermediate_size=4 * CONTEXT,
            projection_dim=CONTEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=VOCABULARY - 2,
            eos_token_id=VOCABULARY - 1,
            pad_token_id=VOCABULARY - 1,
        )
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@cache
def noise_schedule() -> DiscreteSchedule:
    """The scheduler's noise, as the training engine has it."""
    return DiscreteSchedule(build_scheduler().alphas_cumprod.float(), "v")


def text_encoder_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under CLIP's file names: newer transformers drop the leading `text_model.`."""
    prefix = "text_model."
    return {prefix + key.removeprefix(prefix): value for key, value in state.items()}


def half(module: nn.Module) -> dict[str, Tensor]:
    """A module's floating weights in fp16, integer buffers left out (no file of CLIP has them)."""
    state = module.state_dict()
    return {k: v.half().contiguous() for k, v in state.items() if v.is_floating_point()}


def save_config(module: UNet2DConditionModel | AutoencoderKL | CLIPTextModel, folder: Path) -> None:
    """config.json alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(module, CLIPTextModel):
        module.config.architectures = ["CLIPTextModel"]
        module.config.save_pretrained(folder)
    else:
        module.save_config(folder)


def save_weights(state: dict[str, Tensor], target: Path) -> None:
    """Write beside `target` and rename, so that a reader never meets half a file."""
    partial = target.with_suffix(".partial")
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(target)


def save_vae(vae: AutoencoderKL, folder: Path = MODEL) -> None:
    """Write the codec in fp16."""
    save_config(vae, folder / "vae")
    save_weights(half(vae), folder / "vae" / "diffusion_pytorch_model.safetensors")


def save_base(demo: Demo, folder: Path = MODEL) -> None:
    """Write all but the codec and the tokenizer, which have scripts of their own, in fp16."""
    save_config(demo.unet, folder / "unet")
    save_weights(half(demo.unet), folder / "unet" / "diffusion_pytorch_model.safetensors")
    save_config(demo.text_encoder, folder / "text_encoder")
    text = text_encoder_keys(half(demo.text_encoder))
    save_weights(text, folder / "text_encoder" / "model.safetensors")
    build_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")


def load_text_encoder(folder: Path) -> CLIPTextModel:
    """The text encoder, whichever names this transformers gives its modules."""
    encoder = build_text_encoder()
    state = load_file(folder / "model.safetensors")
    own = {"text_model." + k.removeprefix("text_model."): k for k in encoder.state_dict()}
    encoder.load_state_dict({own[key]: value for key, value in state.items()}, strict=False)
    return encoder.float().eval()


def load_vae(folder: Path = MODEL) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder / "vae").float().eval().requires_grad_(False)


def load_demo(folder: Path = MODEL) -> Demo:
    """The parts in float32, ready to sample."""
    return Demo(
        UNet2DConditionModel.from_pretrained(folder / "unet").float().eval(),
        load_text_encoder(folder / "text_encoder"),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        load_vae(folder),
    )
