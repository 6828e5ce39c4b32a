"""Models of real families' layouts, cut down until a test can load and train one in seconds.

The host reads a model's sizes off its file, so each is loaded by the host's own nodes, as the family that it is cut
from, and runs that family's code. Depths and widths are the smallest that the host still takes for the family; text
encoders that it builds in one size are whole. LoRA Loom's recogniser wants real depths and widths, and knows none.

Names and shapes are those of `lora_core.architectures` and, for the VAE, those that the host asks for: the host names
every key that is missing in its log, and the tests look for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from host_harness.cache import cache_dir, locked
from host_harness.models import save
from host_harness.vae_shapes import Shapes, vae_shapes
from lora_core.architectures import clip, joint, sd15, sdxl, streams, t5, unet
from lora_core.architectures.spec import Component
from lora_core.types import TEXT_ENCODER, TEXT_ENCODER_2, Shape

if TYPE_CHECKING:
    from host_harness.host import ComfyHost

VERSION = "1"  # part of the files' names: raise it when what is written below changes
POOL = 1_000_003  # random numbers of which all weights are made

SD15_UNET = replace(sd15.UNET, channel_mult=(1, 1), depth=(1, 0), res_blocks=1)
# The host tells SDXL by the depths on the way down alone.
SDXL_UNET = replace(sdxl.UNET, channel_mult=(1, 1, 1), middle_depth=1, up_depth=((1, 0, 0), (1, 0, 0), (0, 0, 0)))
# As wide as CLIP-L on the text's side, so that CLIP-L alone can be its text encoder: real ones have 4096.
FLUX = streams.StreamsConfig(
    width=256, double=2, single=2, context=768, names=streams.FLUX_NAMES, pooled=768, guidance=True
)
SD3 = joint.JointConfig(layers=3, positions=32)
T5 = t5.T5Config(width=768, inner=128, feed_forward=256, heads=2, layers=2)

# The `model_options` for the files of `flux_text_reduced`.
T5_OPTIONS = {
    "t5xxl_model_config": {
        "d_model": T5.width,
        "d_kv": T5.inner // T5.heads,
        "d_ff": T5.feed_forward,
        "num_heads": T5.heads,
        "num_layers": T5.layers,
    }
}


@dataclass(frozen=True, slots=True)
class FlowModel:
    """The files of a model that comes in parts, each for one of the host's loaders.

    Args:
        name: of the family.
        model, clip, vae: for UNETLoader, CLIPLoader, VAELoader.
        clip_type: for CLIPLoader.
    """

    name: str
    model: Path
    clip: Path
    vae: Path
    clip_type: str

    def loaders(self, comfy: ComfyHost) -> dict[str, dict[str, Any]]:
        """Nodes `model`, `clip` and `vae`, in the API's form; the files are put into the host's folders."""
        model = comfy.add_model(self.model, "diffusion_models")
        clip = comfy.add_model(self.clip, "text_encoders")
        vae = comfy.add_model(self.vae, "vae")
        return {
            "model": {"class_type": "UNETLoader", "inputs": {"unet_name": model, "weight_dtype": "default"}},
            "clip": {"class_type": "CLIPLoader", "inputs": {"clip_name": clip, "type": self.clip_type}},
            "vae": {"class_type": "VAELoader", "inputs": {"vae_name": vae}},
        }


def sd15_reduced() -> Path:
    """A checkpoint of SD 1.5's layout: two levels of 320 channels, an attention in the first and in the middle."""

    def shapes() -> Shapes:
        _, encoder = sd15.build(4)
        return _shapes(unet.build(SD15_UNET)) | _shapes(encoder) | vae_shapes(4, "first_stage_model.")

    return _made("sd15", shapes)


def sdxl_reduced() -> Path:
    """A checkpoint of SDXL's layout: its depths on the way down, three more transformer blocks, 320 channels on all
    levels, and both text encoders, which are three quarters of the 2 GB."""

    def shapes() -> Shapes:
        found = vae_shapes(4, "first_stage_model.")
        for component in sdxl.build(SDXL_UNET):
            found |= _shapes(component)
        return found

    return _made("sdxl", shapes)


def flux_reduced() -> FlowModel:
    """FLUX.1's layout, two blocks of each kind, 256 wide. Its text encoder is CLIP-L alone: the host has T5-XXL in
    one size only. `flux_text_reduced` has both, for code inside the host."""
    model = _made("flux", lambda: _bare(streams.build(FLUX)))
    return FlowModel("flux", model, clip_l(), vae16(), "stable_diffusion")


def flux_text_reduced() -> tuple[Path, Path]:
    """CLIP-L and a small T5, for `comfy.sd.load_text_encoder_state_dicts` with `CLIPType.FLUX` and `T5_OPTIONS`."""
    small = t5.build(T5, TEXT_ENCODER_2, ())
    return clip_l(), _made("t5", lambda: _bare(small))


def sd3_reduced() -> FlowModel:
    """SD 3's layout: three blocks, so 192 wide. Its text encoder is CLIP-L alone, as the host allows."""
    return FlowModel("sd3", _made("sd3", lambda: _bare(joint.build(SD3))), clip_l(), vae16(), "sd3")


def clip_l() -> Path:
    """CLIP-L by itself, whole."""
    whole = clip.build(replace(clip.CLIP_L, projection=768), TEXT_ENCODER, "", ())
    return _made("clip_l", lambda: _bare(whole))


def vae16() -> Path:
    """A VAE with the 16 channels of Flux and SD 3, and the host's layout for it."""
    return _made("vae16", lambda: vae_shapes(16))


def _made(name: str, shapes: Callable[[], Shapes]) -> Path:
    """A file of random weights of these shapes in the cache; made when it is not there."""
    path = cache_dir() / f"reduced-{name}-v{VERSION}.safetensors"
    with locked(path.stem):
        if not path.exists():
            save(random_weights(shapes()), path)
    return path


def random_weights(shapes: Mapping[str, Shape]) -> dict[str, torch.Tensor]:
    """Biases 0, norms 1, everything else normal / sqrt(fan in), in fp16.

    All are cut from the same million numbers, in another place each: a billion of new ones would take 20 s.
    """
    generator = torch.Generator().manual_seed(15)
    pool = torch.randn(POOL, generator=generator)
    scaled: dict[int, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            weights[name] = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float16)
            continue
        # A table of positions is added as it is; the rest multiplies what comes in.
        fan_in = 1 if name == "pos_embed" else math.prod(shape[1:])
        if fan_in not in scaled:
            scaled[fan_in] = (pool / math.sqrt(fan_in)).half()
        numbers = scaled[fan_in]
        start = int(torch.randint(POOL, (), generator=generator))
        weights[name] = weight = torch.empty(shape, dtype=torch.float16)
        rest = weight.view(-1)
        while len(rest):
            piece = numbers[start : start + len(rest)]
            rest[: len(piece)] = piece
            rest, start = rest[len(piece) :], 0
    return weights


def _shapes(component: Component) -> Shapes:
    """Names and shapes in a whole checkpoint, in its own layout."""
    found: Shapes = {}
    for path, module in component.modules.items():
        for parameter, shape in module.shapes.items():
            key, part, transposed = component.place(path, parameter)
            if part is not None:  # rows of a fused matrix: the last ones tell how many there are
                shape = (max(part.start + part.length, found.get(key, (0,))[0]), *shape[1:])
            found[key] = shape[::-1] if transposed else shape
    return found


def _bare(component: Component) -> Shapes:
    """The same in a file of this component alone."""
    return {name.removeprefix(component.checkpoint_prefix): shape for name, shape in _shapes(component).items()}
