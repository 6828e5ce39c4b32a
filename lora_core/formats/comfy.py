"""ComfyUI's names: ``diffusion_model.<path>.lora_up.weight``, ``text_encoders.<encoder>.transformer.<path>...``.

Written by ComfyUI's own nodes, ai-toolkit, diffusion-pipe, OneTrainer, lightx2v and others, with kohya's or PEFT's
suffixes, ``.alpha``, ``.diff``, ``.diff_b``, ``.diff_m``, ``.set_weight`` and ``.reshape_weight``. The paths are the
model's own, and diffusers' in files of trainers that only changed the prefix (ai-toolkit's Z-Image).
"""

from __future__ import annotations

from ..architectures import Architecture, Component
from ..types import DENOISER
from .base import Format, Found, Names
from .dotted import every_path, table
from .suffixes import split_suffix
from .writing import COMFY, TUCKER, Writing, own_modules

_DENOISER = ("diffusion_model.", "model.diffusion_model.")
_TEXT = "text_encoders."


def split(key: str) -> Found:
    """``diffusion_model.blocks.0.self_attn.q.lora_A.weight`` -> (``diffusion_model.blocks.0.self_attn.q``, down)."""
    return split_suffix(key) if key.startswith((*_DENOISER, _TEXT)) else None


def names(architecture: Architecture) -> Names:
    """Every path behind the prefixes of ComfyUI's keys."""

    def prefixes(component: Component) -> tuple[str, ...]:
        if component.name == DENOISER:
            return _DENOISER
        return f"{_TEXT}{component.host_prefix}", f"{_TEXT}{component.encoder}."

    return table(architecture, prefixes, every_path)


def _prefix(component: Component) -> str:
    return _DENOISER[0] if component.name == DENOISER else f"{_TEXT}{component.host_prefix}"


WRITING = Writing(_prefix, own_modules, COMFY, scale="alpha", beside=TUCKER)
FORMAT = Format("comfy", "ComfyUI", split, names, writing=WRITING)
