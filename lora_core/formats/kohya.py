"""kohya's names, the most common: ``lora_unet_<path with _>.lora_down.weight``, ``.alpha``.

Written by kohya's sd-scripts and musubi-tuner, LyCORIS, OneTrainer and many others; read by ComfyUI, A1111 and Forge.
The path is the checkpoint's (``input_blocks_1_1_proj_in``) or diffusers' (``down_blocks_0_attentions_0_proj_in``),
in files for any base. Prefixes: ``lora_unet_``, ``lora_te_`` (one text encoder), ``lora_te1_``, ... ; for the denoiser
also ``lora_transformer_`` (OneTrainer), ``lycoris_`` (SimpleTuner) and ``oft_unet_`` (kohya's OFT).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..architectures import Architecture, Component, Location
from ..types import DENOISER
from .base import Embedded, Format, Found, Ignored, Located, NamedRole, Names
from .suffixes import split_suffix
from .writing import LYCORIS, Writing, diffusers_modules, own_modules

EMBEDDING = "bundle_emb."
OFT = "oft_unet_"
_STARTS = ("lora_", "lycoris_", OFT)
_ONETRAINER = "lora_transformer"
_OF_DENOISERS = ("lora_unet", _ONETRAINER, "lycoris", "oft_unet")


def split(key: str) -> Found:
    """``lora_unet_mid_block_..._to_q.alpha`` -> (``lora_unet_mid_block_..._to_q``, ``alpha``)."""
    if key.startswith(EMBEDDING):
        return _embedding(key)
    if not key.startswith(_STARTS):
        return None
    found = split_suffix(key)
    if found is None:
        # LyCORIS's IA3 says "weight", which in other names would be a weight of the model itself.
        name, dot, last = key.rpartition(".")
        return NamedRole(_plain(name), "ia3_weight") if dot and last == "weight" else None
    role = found.role
    if key.startswith(OFT) and role.startswith("oft_blocks"):
        role = f"kohya_{role}"  # another formula than LyCORIS's under the same suffix
    return NamedRole(_plain(found.name), role)


def _plain(name: str) -> str:
    """Only ``_`` between the parts: names may be half-flattened (``..._attn1.to_k``), end in ``_``, or have two."""
    name = name.replace(".", "_").rstrip("_")
    return name.replace("__", "_") if "__" in name else name


def _embedding(key: str) -> Embedded | Ignored:
    """``bundle_emb.<token>.clip_l``, or ``.string_to_param.*`` for the only one; the token may hold dots and spaces."""
    token, _, encoder = key[len(EMBEDDING) :].rpartition(".")
    token = token.removesuffix(".string_to_param")
    if not token:
        return Ignored("an embedding without a token, which no prompt can name")
    return Embedded(token, {"t5": "t5xxl"}.get(encoder, encoder))


def names(architecture: Architecture) -> Names:
    """Every module under each of its kohya names."""
    table: dict[str, Located] = {}
    for component in architecture.components:
        places = [
            (path.replace(".", "_"), Located.of(component.name, location)) for path, location in component.paths.items()
        ]
        more = _OF_DENOISERS if component.name == DENOISER else ()
        for prefix in dict.fromkeys((*component.kohya_prefixes, *more)):
            for path, located in places:
                table.setdefault(f"{prefix}_{path}", located)
    return table


# Families whose UNet kohya's scripts take from diffusers; they train the others under the checkpoint's own names.
_DIFFUSERS_NAMED = ("sd15", "sd21", "loom_demo")


def _written(architecture: Architecture, component: Component) -> Mapping[str, Location]:
    """The names that kohya's own files have, which every reader of them knows."""
    as_diffusers = component.name == DENOISER and architecture.family in _DIFFUSERS_NAMED
    return (diffusers_modules if as_diffusers else own_modules)(architecture, component)


def _flat(path: str) -> str:
    return path.replace(".", "_")


_WRITTEN_ENCODERS = {"t5xxl": "t5", "*": "string_to_param.*"}


def _embedding_key(token: str, encoder: str) -> str:
    return f"{EMBEDDING}{token}.{_WRITTEN_ENCODERS.get(encoder, encoder)}"


def _apart(architecture: Architecture, component: Component) -> Mapping[str, Location]:
    """q, k and v under diffusers' names, as OneTrainer writes them: LoKr and some DoRA cannot be joined."""
    known = component.name == DENOISER and _ONETRAINER in component.kohya_prefixes
    return diffusers_modules(architecture, component) if known else {}


SUFFIXES = {**LYCORIS, "ia3_weight": "weight", "on_input": "on_input"}
WRITING = Writing(
    prefix=lambda component: f"{component.kohya_prefixes[0]}_",
    modules=_written,
    suffixes=SUFFIXES,
    scale="alpha",
    path=_flat,
    embedding=_embedding_key,
    apart=Writing(lambda component: f"{_ONETRAINER}_", _apart, SUFFIXES, scale="alpha", path=_flat),
)
FORMAT = Format("kohya", "kohya / LyCORIS", split, names, writing=WRITING)
