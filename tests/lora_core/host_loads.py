"""Runs in the host's Python: models of given shapes as the host sees them, and what its loader makes of LoRA files.

Arguments: a JSON file with ``models`` (name -> ``unet`` and ``text``, both key -> shape) and ``files`` (name -> model
and tensors, key -> shape), and the JSON file to write. Nothing here has weights.

Of a model it says what the host's own module would be (``own``: key -> shape) when it makes one from the
configuration that it finds, and which names of LoRA files it has for what (``names``); of a file, each patch with its
target and the file's keys that it takes.
"""

import json
import logging
import sys

import comfy.lora
import comfy.lora_convert
import comfy.model_detection
import torch

PREFIX = "model.diffusion_model."


def tensor(shape):
    """One number, seen as often as the shape says: it can be read and takes no memory."""
    return torch.ones(()).expand(shape)


def model(unet, text):
    """The host's model and clip, as far as the key maps look at them, and the shapes of its own modules."""
    state = {PREFIX + key: tensor(shape) for key, shape in unet.items()}
    state |= {f"text_encoders.{key}": tensor(shape) for key, shape in text.items()}
    config = comfy.model_detection.model_config_from_unet(state, PREFIX)
    if config is None:
        return None, None, None
    built = config.get_model(state, PREFIX, device="meta")
    own = {f"diffusion_model.{key}": value for key, value in built.diffusion_model.state_dict().items()}
    target = config.clip_target(state)
    if text and target is not None:
        own |= target.clip(device="meta", dtype=torch.float32, model_options={}).state_dict()
    own = {key: list(value.shape) for key, value in own.items()}
    built.state_dict = lambda: dict.fromkeys(f"diffusion_model.{key}" for key in unet)

    class Clip:
        def state_dict(self):
            return dict.fromkeys(text)

    return built, Clip(), own


def plain(target):
    """(key, slice or None, name of a function on the change or None)."""
    key, part, function = (*((target,) if isinstance(target, str) else target), None, None)[:3]
    return [key, part, getattr(function, "__name__", None)]


def keys_of(value, original):
    """The file's keys of the tensors in a patch."""
    if isinstance(value, torch.Tensor):
        return [original[id(value)]] if id(value) in original else []
    if hasattr(value, "weights"):
        value = value.weights
    return [key for item in value for key in keys_of(item, original)] if isinstance(value, (list, tuple)) else []


def loads(shapes, maps):
    lora = {key: tensor(shape) for key, shape in shapes.items()}
    original = {id(value): key for key, value in lora.items()}
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), maps, log_missing=False)
    return [[*plain(target), keys_of(value, original)] for target, value in patches.items()]


def main():
    with open(sys.argv[1]) as file:
        wanted = json.load(file)
    answer = {"models": {}, "files": {}}
    maps = {}
    for name, shapes in wanted["models"].items():
        built, clip, own = model(shapes["unet"], shapes["text"])
        answer["models"][name] = {"type": type(built).__name__, "own": own} if built else None
        if built:
            maps[name] = comfy.lora.model_lora_keys_clip(clip, comfy.lora.model_lora_keys_unet(built, {}))
            answer["models"][name]["names"] = {key: plain(target) for key, target in maps[name].items()}
    for name, (of, shapes) in wanted["files"].items():
        try:
            answer["files"][name] = loads(shapes, maps[of]) if of in maps else "no such model in the host"
        except Exception as error:  # the host's loader stumbles over some files; the test says which
            answer["files"][name] = f"{type(error).__name__}: {error}"
    with open(sys.argv[2], "w") as file:
        json.dump(answer, file)


logging.disable(logging.CRITICAL)
main()
