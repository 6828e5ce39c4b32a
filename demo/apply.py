"""LoRA files on the demo model in diffusers' form, through `lora_core`."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from demo.pipeline import Demo
from lora_core import Stack, StackEntry, Strengths, Target, load_adapter
from lora_core.architectures import ARCHITECTURES
from lora_core.patching import apply_patch, bind
from lora_core.types import DENOISER

ARCHITECTURE = ARCHITECTURES.get("loom_demo")


def stack_of(files: Iterable[tuple[Path, float]]) -> Stack:
    """Files with one strength each, for denoiser and text encoder alike."""
    entries = [
        StackEntry(load_adapter(path, ARCHITECTURE.name, strict=True), Strengths(strength, strength))
        for path, strength in files
    ]
    return Stack(tuple(entries))


def find_parameter(demo: Demo, target: Target) -> nn.Parameter | None:
    """The parameter of the diffusers model at a canonical target; None where it has none."""
    module = ARCHITECTURE.module(target.module)
    if module is None:
        return None
    if target.module.component == DENOISER:
        return dict(demo.unet.named_parameters()).get(f"{module.diffusers}.{target.parameter}")
    # Newer transformers leave `text_model.` out of the module names.
    named = {k.removeprefix("text_model."): p for k, p in demo.text_encoder.named_parameters()}
    return named.get(f"{module.diffusers.removeprefix('text_model.')}.{target.parameter}")


@torch.no_grad()
def with_stack(demo: Demo, stack: Stack) -> Demo:
    """A copy of the model with the stack in its weights; the codec and the tokenizer are shared."""
    patched = Demo(copy.deepcopy(demo.unet), copy.deepcopy(demo.text_encoder), demo.tokenizer, demo.vae)

    def shape_of(target: Target) -> tuple[int, ...] | None:
        parameter = find_parameter(patched, target)
        return None if parameter is None else tuple(parameter.shape)

    for target, patch in bind(stack, shape_of, ARCHITECTURE).patches.items():
        parameter = find_parameter(patched, target)
        if parameter is not None:
            parameter.copy_(apply_patch(parameter, patch))
    return patched
