"""The demo model as the host's own MODEL, CLIP and VAE: SD 1.5's classes, narrower.

No checkpoint loader of the host recognises widths of our own, so its parts are put together here, from the
configurations of a diffusers folder and from weights under a single-file checkpoint's keys. SD 1.5 in the host has
8 attention heads and 32 norm groups, whatever the width; the folder's configuration agrees with that.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import torch

from ..lora_core.errors import ConfigError, ShapeMismatchError
from ..lora_core.merge import Checkpoint, open_checkpoint

UNET_PREFIX = "model.diffusion_model."
CLIP_PREFIX = "cond_stage_model."
VAE_PREFIX = "first_stage_model."


class Loaded(NamedTuple):
    """What a checkpoint loader of the host returns."""

    model: Any
    clip: Any
    vae: Any


class _Latents(comfy.latent_formats.LatentFormat):
    """Latents of the folder's VAE: its channels and its scaling factor."""

    def __init__(self, channels: int, scale: float, downscale: int) -> None:
        self.latent_channels = channels
        self.scale_factor = scale
        self.spacial_downscale_ratio = downscale  # the host's spelling


class _Config(comfy.supported_models.SD15):
    """SD 1.5 with another width, latent format and prediction."""

    prediction = comfy.model_base.ModelType.EPS

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        return self.prediction

    def inpaint_model(self) -> bool:
        # SD 1.5 takes more than 4 input channels for an inpainting model; ours has 16 channels of latent.
        return False


def load_demo(folder: Path, checkpoint: Path) -> Loaded:
    """Build the parts.

    Args:
        folder: a diffusers pipeline of SD 1.5's kind, for its configurations and its tokenizer.
        checkpoint: the same folder, or a single file that was merged from it.

    Raises:
        ConfigError, ShapeMismatchError: the checkpoint is of another model.
    """
    source = open_checkpoint(checkpoint)
    _require_same(open_checkpoint(folder), source)
    weights = {key: source.load(key) for key in source.tensors}
    return Loaded(_unet(folder, weights), _clip(folder, weights), _vae(folder, weights))


def _require_same(expected: Checkpoint, given: Checkpoint) -> None:
    """The host only logs what is missing, and goes on with numbers that happen to be in memory."""
    hint = "Choose a checkpoint that Merge to Checkpoint made of the demo model."
    if given.architecture.name != expected.architecture.name:
        title, wanted = given.architecture.title, expected.architecture.title
        raise ConfigError(given.label, [f"a checkpoint of {title}, expected {wanted}. {hint}"])
    for key, stored in expected.tensors.items():
        found = given.tensors.get(key)
        if found is None:
            raise ConfigError(given.label, [f"{key} is missing. {hint}"])
        if found.shape != stored.shape:
            raise ShapeMismatchError(given.label, key, stored.shape, found.shape, hint)


def _read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _unet(folder: Path, weights: dict[str, torch.Tensor]) -> Any:
    unet, vae, schedule = (_read(folder, name) for name in UNET_FILES)
    widths, blocks = unet["block_out_channels"], unet["layers_per_block"]
    depths = [int("CrossAttn" in kind) for kind in unet["down_block_types"]]
    config = _Config(
        {
            "image_size": 32,
            "in_channels": unet["in_channels"],
            "out_channels": unet["out_channels"],
            "model_channels": widths[0],
            "channel_mult": [width // widths[0] for width in widths],
            "num_res_blocks": [blocks] * len(widths),
            "transformer_depth": [depth for depth in depths for _ in range(blocks)],
            "transformer_depth_output": [depth for depth in depths for _ in range(blocks + 1)],
            "transformer_depth_middle": 1,
            "context_dim": unet["cross_attention_dim"],
            "adm_in_channels": None,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "use_temporal_attention": False,
            "use_checkpoint": False,
            "legacy": False,
        }
    )
    config.latent_format = _Latents(vae["latent_channels"], vae["scaling_factor"], _downscale(vae))
    if schedule["prediction_type"] == "v_prediction":
        config.prediction = comfy.model_base.ModelType.V_PREDICTION
    # The host's "linear" runs over the square roots, which diffusers calls "scaled_linear".
    config.sampling_settings = {
        "beta_schedule": "linear",
        "linear_start": schedule["beta_start"],
        "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"],
    }
    management = comfy.model_management
    device = management.get_torch_device()
    parameters = sum(tensor.numel() for key, tensor in weights.items() if key.startswith(UNET_PREFIX))
    dtype = management.unet_dtype(model_params=parameters, supported_dtypes=config.supported_inference_dtypes)
    cast = management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    offload = management.unet_offload_device()
    model = config.get_model(weights, UNET_PREFIX, device=offload)
    model.load_model_weights(weights, UNET_PREFIX)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


UNET_FILES = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")


def _clip(folder: Path, weights: dict[str, torch.Tensor]) -> Any:
    config = _read(folder, "text_encoder/config.json")

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                textmodel_json_config=config,
                special_tokens={
                    "start": config["bos_token_id"],
                    "end": config["eos_token_id"],
                    "pad": config["pad_token_id"],
                },
                return_projected_pooled=False,
                model_options=model_options or {},
            )
            # The host's CLIP always has OpenAI's vocabulary.
            size = config["vocab_size"], config["hidden_size"]
            self.transformer.set_input_embeddings(self.operations.Embedding(*size, dtype=dtype, device=device))
            self.freeze()

    class DemoClip(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=Encoder)

    class Words(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(
                tokenizer_path=str(folder / "tokenizer"),
                embedding_directory=embedding_directory,
                embedding_size=config["hidden_size"],
                tokenizer_data=tokenizer_data or {},
            )

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=Words)

    state = {
        "clip_l." + key.removeprefix(CLIP_PREFIX): weights.pop(key)
        for key in list(weights)
        if key.startswith(CLIP_PREFIX)
    }
    target = comfy.supported_models_base.ClipTarget(Tokenizer, DemoClip)
    folders = folder_paths.get_folder_paths("embeddings")
    parameters = sum(tensor.numel() for tensor in state.values())
    if "state_dict" in inspect.signature(comfy.sd.CLIP).parameters:
        return comfy.sd.CLIP(target, embedding_directory=folders, parameters=parameters, state_dict=state)
    # Older hosts take the weights afterwards.
    clip = comfy.sd.CLIP(target, embedding_directory=folders, parameters=parameters)
    clip.load_sd(state, full_model=True)
    return clip


def _vae(folder: Path, weights: dict[str, torch.Tensor]) -> Any:
    config = _read(folder, "vae/config.json")
    widths, channels = config["block_out_channels"], config["latent_channels"]
    layout = {
        "double_z": True,
        "z_channels": channels,
        "resolution": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    state = {key.removeprefix(VAE_PREFIX): tensor for key, tensor in weights.items() if key.startswith(VAE_PREFIX)}
    vae = comfy.sd.VAE(sd=state, config={"params": {"ddconfig": layout, "embed_dim": channels}})
    vae.latent_channels = channels
    vae.downscale_ratio = vae.upscale_ratio = _downscale(config)
    return vae


def _downscale(vae: dict[str, Any]) -> int:
    """Pixels per latent: every level but the last halves."""
    return 2 ** (len(vae["block_out_channels"]) - 1)
