"""T5 encoders have the names and shapes of transformers' own classes and of real all-in-one checkpoints."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import inventories
from lora_core.architectures import Component, t5
from lora_core.types import TEXT_ENCODER_3, Shape

SMALL = t5.T5Config(width=32, inner=48, feed_forward=80, heads=6, layers=3, vocabulary=50)


def parameters(component: Component) -> dict[str, Shape]:
    """Key in a checkpoint -> shape."""
    return {
        component.place(path, name).key: shape
        for path, module in component.modules.items()
        for name, shape in module.shapes.items()
    }


def encoder(config: t5.T5Config, name: str = "t5xxl") -> Component:
    return t5.build(config, TEXT_ENCODER_3, ("lora_te3",), name)


@pytest.mark.parametrize("name", ["sd3-medium__comfy-allinone", "flux-dev__comfy-allinone"])
def test_t5_xxl_is_that_of_all_in_one_checkpoints(name: str, keys: Path):
    checkpoint = inventories.read(keys / "base" / f"{name}.json")["tensors"]
    prefix = "text_encoders.t5xxl.transformer."

    found = {key: tuple(shape) for key, shape in checkpoint.items() if key.startswith(prefix)}

    assert parameters(encoder(t5.T5_XXL)) == found


@pytest.mark.parametrize(
    ("config", "kind", "activation"),
    [
        (SMALL, "T5EncoderModel", "gated-gelu"),
        (replace(SMALL, gated=False), "T5EncoderModel", "relu"),
        (replace(SMALL, bias_in_every_block=True), "UMT5EncoderModel", "gated-gelu"),
    ],
    ids=["t5-v1.1", "t5", "umt5"],
)
def test_names_and_shapes_are_those_of_transformers(config: t5.T5Config, kind: str, activation: str):
    import transformers

    settings = getattr(transformers, kind).config_class(
        d_model=config.width,
        d_kv=config.inner // config.heads,
        d_ff=config.feed_forward,
        num_heads=config.heads,
        num_layers=config.layers,
        vocab_size=config.vocabulary,
        feed_forward_proj=activation,
    )
    with torch.device("meta"):
        model = getattr(transformers, kind)(settings)
    described = encoder(config)

    stored = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert stored.pop("encoder.embed_tokens.weight", None) in (None, stored["shared.weight"])
    assert stored == {
        f"{module.diffusers}.{name}": shape
        for module in described.modules.values()
        for name, shape in module.shapes.items()
    }
    assert described.paths["encoder.embed_tokens"].path == "shared"


def test_umt5_has_positions_in_every_block_and_a_larger_vocabulary():
    modules = encoder(t5.UMT5_XXL, "umt5xxl").modules
    tables = [path for path in modules if path.endswith("relative_attention_bias")]

    assert len(tables) == 24
    assert modules["shared"].shapes["weight"] == (256384, 4096)
    assert {key: value for key, value in asdict(t5.UMT5_XXL).items() if value != asdict(t5.T5_XXL)[key]} == {
        "vocabulary": 256384,
        "bias_in_every_block": True,
    }


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "config"),
    [("t5_config_xxl", t5.T5_XXL), ("umt5_config_xxl", t5.UMT5_XXL), ("t5_old_config_xxl", t5.T5_11B)],
)
def test_names_and_shapes_are_those_of_the_host(name: str, config: t5.T5Config, comfy_environment):
    code = """
    import json, sys
    from pathlib import Path
    import torch
    import comfy.ops
    from comfy.text_encoders import t5
    config = json.loads(Path(t5.__file__).with_name(sys.argv[1] + ".json").read_text())
    model = t5.T5(config, torch.float32, "meta", comfy.ops.disable_weight_init)
    print("SHAPES", json.dumps({key: list(value.shape) for key, value in model.state_dict().items()}))
    """
    import json
    import textwrap

    out = comfy_environment.run_code(textwrap.dedent(code), name)
    line = next(line for line in out.splitlines() if line.startswith("SHAPES "))
    found = {key: tuple(shape) for key, shape in json.loads(line.removeprefix("SHAPES ")).items()}
    described = encoder(config)
    assert {
        f"{path}.{parameter}": shape
        for path, module in described.modules.items()
        for parameter, shape in module.shapes.items()
    } == found
