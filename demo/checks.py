"""What the demo's LoRAs must do, as losses with fixed noise and as weights: no pictures are drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.apply import stack_of, with_stack
from demo.dataset import FLAT, HIGH_CONTRAST, Item, load_images, read_items, select
from demo.measure import fixed_losses, pairs, shuffled
from demo.pipeline import Demo
from demo.sample import sample_latents
from demo.train_loras import lora_file

Losses = dict[str, dict[str, float]]
SETS = {
    "style": "High-Contrast, names held out",
    "content": "Flat, food held out",
    "both": "High-Contrast, all food",
    "neither": "High-Contrast, food held out",
    "flat": "Flat, names held out of the style LoRA; the base knows them",
}

# Set -> model that must tell its captions apart.
CAPTIONED = {"flat": "base", "style": "style", "both": "stack"}


def sets_of_pictures() -> dict[str, list[Item]]:
    """Pictures that no LoRA was trained on, by the keys of SETS."""
    flat, contrast = read_items(FLAT), read_items(HIGH_CONTRAST)
    return {
        "style": select(contrast, food=False, split="heldout"),
        "content": select(flat, food=True, split="heldout"),
        "both": select(contrast, food=True),
        "neither": select(contrast, food=True, split="heldout"),
        "flat": select(flat, food=False, split="heldout"),
    }


def variants(demo: Demo, loras: Path) -> dict[str, Demo]:
    """The base alone, with either LoRA, and with both, all at strength 1."""
    style, content = (lora_file(name, loras) for name in ("style", "content"))
    return {
        "base": demo,
        "style": with_stack(demo, stack_of([(style, 1.0)])),
        "content": with_stack(demo, stack_of([(content, 1.0)])),
        "stack": with_stack(demo, stack_of([(style, 1.0), (content, 1.0)])),
    }


def held_out_losses(models: Mapping[str, Demo]) -> dict[str, Losses]:
    """{set: {model: {timestep: loss}}}; "<model>, shuffled" where captions are those of other pictures."""
    result: dict[str, Losses] = {}
    for name, items in sets_of_pictures().items():
        latents, captions = pairs(models["base"], items)
        result[name] = {m: fixed_losses(model, latents, captions) for m, model in models.items()}
        if model := CAPTIONED.get(name):
            result[name][f"{model}, shuffled"] = fixed_losses(models[model], latents, shuffled(captions))
    return result


def loss_checks(losses: Mapping[str, Losses]) -> dict[str, bool]:
    """What must hold, from the losses alone."""

    def mean(what: str, model: str) -> float:
        return losses[what][model]["mean"]

    alone = [mean("both", model) for model in ("base", "style", "content")]
    checks = {
        "style lowers the loss on names it never saw": mean("style", "style") < mean("style", "base"),
        "content lowers the loss on food it never saw": mean("content", "content") < mean("content", "base"),
        "on food in High-Contrast, which neither saw, the stack beats style, content and base": mean("both", "stack")
        < min(alone),
    }
    for what, name in CAPTIONED.items():
        right, wrong = mean(what, name), mean(what, f"{name}, shuffled")
        checks[f"{name}: the right captions beat shuffled ones"] = right < wrong
    return checks


def same_weights(one: Demo, other: Demo) -> bool:
    """Whether UNet and text encoder are equal in every bit."""
    return _same(one.unet.state_dict(), other.unet.state_dict()) and _same(
        one.text_encoder.state_dict(), other.text_encoder.state_dict()
    )


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def recognised(demo: Demo, items: Sequence[Item], wanted: Sequence[Item]) -> dict[str, Any]:
    """Of one picture a caption, how many are nearest to their own icon among `items`.

    Distance is mean square error of latents; chance would be 1 in len(items).
    """
    truth = demo.encode(load_images(items)).flatten(1)
    places = {item.text: place for place, item in enumerate(items)}
    drawn = sample_latents(demo, [item.text for item in wanted]).flatten(1)
    nearest = torch.cdist(drawn, truth).argmin(dim=1).tolist()
    missed = [item.text for item, found in zip(wanted, nearest, strict=True) if places[item.text] != found]
    return {"captions": len(wanted), "among": len(items), "own icon": len(wanted) - len(missed), "missed": missed}
