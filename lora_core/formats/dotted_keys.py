"""Keys that are paths with dots, split: one function for the formats whose keys differ in the modules' names alone.

A file's keys are split once for all of them; which of them it is, the names tell (``mapping``).

    unet.down_blocks.0...to_q.lora_A.weight          PEFT's suffixes
    ...to_q.lora.down.weight, ...q_proj.lora_linear_layer.up.weight
    ...attn1.processor.to_q_lora.down.weight         the first naming of diffusers
    double_blocks.0...norm.key_norm.scale            BFL's control LoRAs
"""

from __future__ import annotations

import re

from .base import Found, Ignored, NamedRole
from .suffixes import split_suffix

# attn1.processor.to_q_lora.down.weight, self_attn.to_q_lora.up.weight, self_attn.k_proj.to_k_lora.down.weight
_OLD = re.compile(r"\.to_(q|k|v|out)_lora\.(down|up)\.weight$")
_PROJECTION = re.compile(r"\.(q|k|v|out)_proj$")
# How keys of the formats begin that have prefixes of their own.
_ELSEWHERE = ("lora_", "lycoris_", "oft_unet_", "diffusion_model.", "model.diffusion_model.", "text_encoders.")


def split(key: str) -> Found:
    """The module's path with its prefix, and the role."""
    if key.startswith(_ELSEWHERE) or "base_model." in key:
        return None
    if key.endswith("_norm.scale"):
        # BFL's control LoRAs hold the norms of q and k whole.
        return NamedRole(key.removesuffix(".scale"), "set_weight")
    if "_lora." in key and (found := _OLD.search(key)):
        return _old(key[: found.start()], found[1], found[2])
    named = split_suffix(key)
    if named is not None and named.name == "img_in" and named.role == "down":
        # Theirs is as wide as the new layer, which takes the control picture's channels too.
        return NamedRole("img_in", "wide_down")
    return named


def _old(owner: str, projection: str, role: str) -> NamedRole | Ignored:
    """The first naming of diffusers hung the adapters of all projections on the attention's processor."""
    if owner.endswith(".processor"):
        leaf = "to_out.0" if projection == "out" else f"to_{projection}"
        return NamedRole(f"{owner[: -len('.processor')]}.{leaf}", role)
    # A version of diffusers (issue 3437) put the four pairs of an attention below each of its projections;
    # only the pair of the projection itself ever took part.
    if doubled := _PROJECTION.search(owner):
        if doubled[1] != projection:
            reason = f"diffusers put the {projection} adapter below {doubled[1]}_proj, where it never took part"
            return Ignored(reason)
        return NamedRole(owner, role)
    return NamedRole(f"{owner}.{projection}_proj", role)
