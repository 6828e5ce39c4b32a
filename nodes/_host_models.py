"""What the host's MODEL and CLIP are, and clones of them that belong to a training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..lora_core.errors import ConfigError
from ._host_conditions import EDITING


def own(model: Any, name: str) -> Any:
    """A clone of ours. Models that the host loads piece by piece while it runs are loaded whole for training."""
    if not is_dynamic(model):
        return model.clone()
    try:
        return model.clone(disable_dynamic=True)
    except RuntimeError:
        fault = "the host loads it piece by piece, and knows no file to load it whole from"
        raise ConfigError(name, [f"{fault}: start ComfyUI with --disable-dynamic-vram to train on it"]) from None


def own_clip(clip: Any, trained: bool) -> Any:
    made = clip.clone()
    if trained and is_dynamic(clip.patcher):
        made.patcher = own(clip.patcher, "CLIP")
        made.cond_stage_model = made.patcher.model
    return made


def patches_digest(patches: Mapping[str, Any]) -> str:
    """Of the host's patches: strengths, and the sum of each tensor."""

    def told(value: Any) -> object:
        if isinstance(value, Tensor):
            return [list(value.shape), value.double().sum().item()]
        if isinstance(value, (tuple, list)):
            return [told(one) for one in value]
        if hasattr(value, "weights"):
            return told(value.weights)
        if dataclasses.is_dataclass(value):  # ours, which holds the strengths
            return [told(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return value if isinstance(value, (int, float, str)) else ""

    facts = sorted((str(key), told(found)) for key, found in patches.items())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16] if facts else ""


def is_dynamic(patcher: Any) -> bool:
    return bool(getattr(patcher, "is_dynamic", bool)())


def check_model(model: Any) -> None:
    """Raise ConfigError for what would be in the way of gradients, or missing from them."""
    if getattr(model, "injections", None):
        fault = "a node before this one hooks LoRAs into its layers (a bypass loader)"
        raise ConfigError("MODEL", [f"{fault}: load them with LoRA Loader, whose changes are in the weights"])
    if getattr(model.model, "concat_keys", ()):
        raise ConfigError("MODEL", [EDITING])
    if getattr(model.get_model_object("latent_format"), "latent_dimensions", 2) not in (2, 3):
        raise ConfigError("MODEL", ["it makes no pictures: connect a model of pictures or films"])


def unused_patches(model: Any) -> str:
    """A warning about what nodes put on a MODEL beside changes of its weights: training leaves it out; "" without."""
    options = getattr(model, "model_options", {})
    there = [name for name in ("model_function_wrapper", "sampler_cfg_function") if options.get(name)]
    there += [name for name in ("patches", "patches_replace", "rope_options") if _transformer(options).get(name)]
    there += ["wrappers"] if any(getattr(model, "wrappers", {}).values()) else []
    if not there:
        return ""
    return (
        f"nodes before LoRA Train changed how the MODEL works ({', '.join(there)}); training and samples leave that "
        "out: its weights and its kind of sampling alone count"
    )


def _transformer(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return options.get("transformer_options", {})


def has_guidance(model: Any) -> bool:
    """Whether a model was distilled with a guidance, which it is told, so that no negative prompt is needed."""
    config = getattr(model.model_config, "unet_config", {})
    return bool(config.get("guidance_embed", False))
