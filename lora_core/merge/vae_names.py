"""diffusers' names of an ``AutoencoderKL`` -> those of a single-file checkpoint, for any number of levels.

The decoder counts its levels from the inside in diffusers and from the outside in checkpoints, and the
attention's projections are linear layers in diffusers, 1x1 convolutions in checkpoints: the same numbers under
the shape (c, c, 1, 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..architectures import Architecture
from ..io import TensorRef
from ..types import Shape

# Stability's own code has the first; ComfyUI's checkpoints of all other families the second.
PREFIXES = (PREFIX, OTHER_PREFIX) = ("first_stage_model.", "vae.")
STABILITY = frozenset(
    ("sd15", "sd21", "sdxl", "sdxl_refiner", "ssd_1b", "segmind_vega", "sd3", "sd35_medium", "sd35_large", "loom_demo")
)

_LEVEL = re.compile(
    r"^(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$"
)
_MIDDLE = re.compile(r"^(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)$")

_RESNET = {"conv_shortcut": "nin_shortcut"}
# Before version 0.15 diffusers called the projections query, key, value and proj_attn.
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}


def prefix_of(architecture: Architecture) -> str:
    """What a family's checkpoints put in front of the VAE's names."""
    return PREFIX if architecture.family in STABILITY else OTHER_PREFIX


def unknown(found: Mapping[str, TensorRef]) -> str:
    """Why the names of this VAE in diffusers cannot be a checkpoint's, "" where they can."""
    wide = next((name for name, ref in found.items() if len(ref.shape) > 4), None)
    return f"a VAE of videos, whose names in single files are not known ({wide})" if wide else ""


def levels_of(names: Iterable[str]) -> int:
    """Number of levels of the decoder whose tensors have these names."""
    found = [int(match[2]) for name in names if (match := _LEVEL.match(name)) and match[1] == "decoder"]
    return max(found, default=-1) + 1


def checkpoint_name(name: str, levels: int) -> str:
    """``decoder.up_blocks.0.resnets.1.conv1.weight`` of 4 levels -> ``decoder.up.3.block.1.conv1.weight``."""
    if found := _LEVEL.match(name):
        side, block, kind, index, rest = found[1], int(found[2]), found[3], found[4], found[5]
        level = f"{side}.down.{block}" if side == "encoder" else f"{side}.up.{levels - 1 - block}"
        if kind == "resnets":
            return f"{level}.block.{index}.{_renamed(rest, _RESNET)}"
        if kind == "attentions":
            return f"{level}.attn.{index}.{_renamed(rest, _ATTENTION)}"
        return f"{level}.{'downsample' if kind == 'downsamplers' else 'upsample'}.{rest}"
    if found := _MIDDLE.match(name):
        place = f"{found[1]}.mid"
        if found[2] == "resnets":
            return f"{place}.block_{int(found[3]) + 1}.{_renamed(found[4], _RESNET)}"
        return f"{place}.attn_{int(found[3]) + 1}.{_renamed(found[4], _ATTENTION)}"
    return name.replace("conv_norm_out", "norm_out")


def checkpoint_shape(name: str, shape: Shape) -> Shape:
    """The shape in a checkpoint of the tensor with this diffusers name."""
    return (*shape, 1, 1) if ".attentions." in name and len(shape) == 2 else shape


def _renamed(rest: str, table: dict[str, str]) -> str:
    """``to_out.0.weight`` -> ``proj_out.weight``."""
    module, _, parameter = rest.rpartition(".")
    return f"{table.get(module, module)}.{parameter}"
