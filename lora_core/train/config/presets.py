"""Settings to start from: for each architecture one that is known to work, changed by what a LoRA is for.

A preset's values stand under the user's own. docs/TRAINING.md says what each is for and where its values come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ...errors import UnknownNameError

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preset:
    """Values by section, and for whom they are."""

    title: str
    values: Mapping[str, Mapping[str, Any]]


def preset_values(name: str) -> Table:
    """A copy of a preset's values.

    Raises:
        UnknownNameError: with the nearest name that is one.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, tuple(PRESETS))
    return _over({}, PRESETS[name].values)


def preset_for(architecture: str, purpose: str, prediction: str = "flow") -> str:
    """The preset of a model family, by its name in ``ARCHITECTURES``, for a purpose: ``style``, ``subject``, ...

    Variants have that of the family whose name theirs begins with. Of the rest flows share one, and what predicts
    noise or v has SDXL's.

    Raises:
        UnknownNameError: no such purpose.
    """
    if purpose not in _PURPOSES:
        raise UnknownNameError("purpose", purpose, tuple(_PURPOSES))
    alike = [model for model in _MODELS if architecture == model or architecture.startswith(f"{model}_")]
    return f"{max(alike, key=len, default='dit' if prediction == 'flow' else 'sdxl')}-{purpose}"


def _over(below: Mapping[str, Any], *layers: Mapping[str, Any]) -> Table:
    """Sections joined key by key; later layers win."""
    result: Table = {section: dict(values) for section, values in below.items()}
    for layer in layers:
        for section, values in layer.items():
            result[section] = {**cast(Table, result.get(section, {})), **values}
    return result


# Sources: for SD 1.5 and SDXL the examples of diffusers and what trainers' communities settled on; min-SNR 5 is from
# Hang et al. 2023; shifted timesteps from Esser et al. 2024.
_MODELS: dict[str, tuple[str, Table]] = {
    "sd15": (
        "SD 1.5",
        {
            "data": {"resolution": [512, 512]},
            "network": {"rank": 16, "alpha": 16.0, "targets": "attention+ff"},
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant_with_warmup", "warmup": 100},
            "run": {"batch": 4, "precision": "bf16"},
            "samples": {"steps": 20, "guidance": 7.0},
        },
    ),
    "sd21": (
        "SD 2.1 at 768 px",
        {
            "data": {"resolution": [768, 768]},
            "network": {"rank": 16, "alpha": 16.0, "targets": "attention+ff"},
            "objective": {"weighting": "min_snr", "gamma": 5.0},
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant_with_warmup", "warmup": 100},
            "run": {"batch": 4, "precision": "bf16"},
            "samples": {"steps": 20, "guidance": 7.0},
        },
    ),
    "sdxl": (
        "SDXL",
        {
            "model": {"dtype": "bf16"},
            "data": {"resolution": [1024, 1024], "caption_dropout": 0.05},
            "network": {"rank": 16, "alpha": 8.0, "targets": "attention+ff"},
            "objective": {"weighting": "min_snr", "gamma": 5.0},
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant_with_warmup", "warmup": 100},
            "run": {"batch": 1, "precision": "bf16", "checkpointing": True},
            "samples": {"steps": 25, "guidance": 6.0},
        },
    ),
    "flux": (
        "FLUX.1",
        {
            "model": {"dtype": "bf16"},
            "data": {"resolution": [1024, 1024]},
            "network": {"rank": 16, "alpha": 16.0, "targets": "attention+ff"},
            "objective": {"timesteps": "logit_normal"},  # the model's own shift is its schedule's
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant_with_warmup", "warmup": 100},
            "run": {"batch": 1, "precision": "bf16", "checkpointing": True},
            "samples": {"steps": 20, "guidance": 3.5},
        },
    ),
    "dit": (
        "any other diffusion transformer",
        {
            "model": {"dtype": "bf16"},
            "data": {"resolution": [1024, 1024]},
            "network": {"rank": 16, "alpha": 16.0, "targets": "attention+ff"},
            "objective": {"timesteps": "logit_normal"},
            "optimizer": {"learning_rate": 1e-4, "schedule": "constant_with_warmup", "warmup": 100},
            "run": {"batch": 1, "precision": "bf16", "checkpointing": True},
            "samples": {"steps": 25, "guidance": 4.0},
        },
    ),
    "loom_demo": (
        "the demo model",
        {
            "data": {"resolution": [64, 64], "buckets": False, "caption_dropout": 0.1},
            "network": {
                "rank": 8,
                "alpha": 8.0,
                "targets": "attention+ff+proj+conv",
                "conv_rank": 8,
                "conv_alpha": 8.0,
            },
            "objective": {"weighting": "min_snr", "gamma": 5.0, "timesteps": "stratified"},
            "optimizer": {"learning_rate": 2e-3, "betas": [0.9, 0.99], "schedule": "cosine", "warmup": 10},
            "run": {"batch": 16, "precision": "fp32"},
            "samples": {"steps": 20, "guidance": 3.0},
        },
    ),
}

_PURPOSES: dict[str, tuple[str, Table]] = {
    "style": (
        "a style, from 30 to 100 pictures",
        {"run": {"steps": 2000}, "validation": {"split": 0.1}, "output": {"save_every": 500}},
    ),
    "subject": (
        "a thing, from 10 to 30 pictures",
        {"run": {"steps": 1000}, "data": {"keep_tokens": 1}, "output": {"save_every": 250}},
    ),
    "character": (
        "a person or figure, from 10 to 30 pictures",
        {"run": {"steps": 1500}, "data": {"keep_tokens": 1}, "output": {"save_every": 250}},
    ),
}

# What one architecture needs otherwise for one purpose.
_SPECIAL: dict[str, Table] = {
    "sdxl-style": {"network": {"rank": 32, "alpha": 16.0}},
    "sdxl-character": {"network": {"rank": 32, "alpha": 16.0}},
    **{
        f"loom_demo-{purpose}": {"run": {"steps": 400}, "output": {"save_every": 0}, "validation": {"split": 0.0}}
        for purpose in _PURPOSES
    },
}

PRESETS: dict[str, Preset] = {
    **{
        f"{model}-{purpose}": Preset(
            f"{aim}, on {title}", _over(values, wanted, _SPECIAL.get(f"{model}-{purpose}", {}))
        )
        for model, (title, values) in _MODELS.items()
        for purpose, (aim, wanted) in _PURPOSES.items()
    },
    "paper": Preset(
        "the LoRA paper's way on SD 1.5: rank 4, attention alone, one caption for all pictures",
        _over(
            _MODELS["sd15"][1],
            {
                "network": {
                    "rank": 4,
                    "alpha": 4.0,
                    "start": "gaussian",
                    "targets": ["to_q", "to_k", "to_v", "to_out.0"],
                },
                "optimizer": {"schedule": "constant", "warmup": 0},
                "run": {"batch": 1, "steps": 1000},
                "output": {"dtype": "fp32"},
            },
        ),
    ),
    "pivotal": Preset(
        "two new words whose embeddings are trained first, then the LoRA, on SD 1.5 (cloneofsimo's way)",
        _over(
            _MODELS["sd15"][1],
            {
                "data": {"colour_jitter": 0.1},
                "network": {"rank": 4, "alpha": 4.0, "targets": "attention"},
                "text_encoder": {"train": True, "targets": "attention", "learning_rate": 1e-5},
                "tokens": {
                    "names": ["<s1>", "<s2>"],
                    "learning_rate": 5e-4,
                    "steps": 1000,
                    "norm": 0.4,
                    "templates": "object",
                },
                "run": {"batch": 1, "steps": 2000},
            },
        ),
    ),
    "sdxl-prodigy": Preset(
        "SDXL with an optimizer that finds the learning rate",
        _over(
            _MODELS["sdxl"][1],
            {
                "optimizer": {
                    "name": "prodigy",
                    "learning_rate": 1.0,
                    "weight_decay": 0.01,
                    "schedule": "constant",
                    "warmup": 0,
                },
                "run": {"steps": 1500},
                "output": {"save_every": 500},
            },
        ),
    ),
}
