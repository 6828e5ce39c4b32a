"""kohya's names, the most common: ``lora_unet_<path with _>.lora_down.weight``, ``.alpha``.

Written by kohya's sd-scripts, LyCORIS, OneTrainer and many others; read by ComfyUI, A1111 and Forge. The
path is the checkpoint's (``input_blocks_1_1_proj_in``) or diffusers' (``down_blocks_0_attentions_0_proj_in``),
in files for any base. Text encoders: ``lora_te_`` (SD 1, 2), ``lora_te1_`` and ``lora_te2_`` (SDXL).
"""

from __future__ import annotations

from ..architectures import Architecture
from ..types import ModuleKey
from .base import Format, Ignored, Located, NamedRole, Names, split_suffix

# suffix -> role, where it is not the role's own name. sd-scripts (lora_*), diffusers' conversion of PEFT
# files (lora_A, lora_magnitude_vector).
SUFFIXES: dict[str, str] = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector": "magnitude",
}
EMBEDDING = "bundle_emb."


def split(key: str) -> NamedRole | Ignored | None:
    """``lora_unet_mid_block_..._to_q.alpha`` -> (``lora_unet_mid_block_..._to_q``, ``alpha``)."""
    if key.startswith(EMBEDDING):
        token = key[len(EMBEDDING) :].rsplit(".", 1)[0]
        return Ignored(f"embedding of the token {token!r}, bundled with the LoRA; it changes no weight")
    if not key.startswith("lora_"):
        return None
    found = split_suffix(key, SUFFIXES)
    # A half-flattened name (..._attn1.to_k.lora_magnitude_vector) still has dots, some names end in "_".
    return found and found._replace(name=found.name.replace(".", "_").rstrip("_"))


def names(architecture: Architecture) -> Names:
    """Every module under each of its kohya names."""
    table: dict[str, Located] = {}
    for component in architecture.components:
        for prefix in component.kohya_prefixes:
            for paths in (component.diffusers, component.native):
                for path, location in paths.items():
                    key = ModuleKey(component.name, location.path)
                    table[f"{prefix}_{path.replace('.', '_')}"] = Located(key, location.slice)
    return table


FORMAT = Format("kohya", "kohya / LyCORIS", split, names)
