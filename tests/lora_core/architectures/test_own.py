"""A model of no family in the table is one of its own: what is trained on it fits it, and nothing else."""

from __future__ import annotations

import pytest
import torch

from lora_core.architectures import ARCHITECTURES
from lora_core.architectures.own import own_family
from lora_core.convert import convert
from lora_core.errors import UnknownArchitectureError
from lora_core.io import TensorDict
from lora_core.mapping import map_source
from lora_core.types import DENOISER, ModuleKey

SHAPES = {
    "diffusion_model.blocks.0.attn.to_q.weight": (8, 8),
    "diffusion_model.blocks.0.attn.to_q.bias": (8,),
    "diffusion_model.blocks.11.mlp.fc1.weight": (16, 8),
    "diffusion_model.pos_embed": (1, 4, 8),
    "diffusion_model.out.weight": (4, 8, 3, 3),
}
FACTORS = {
    "lora_unet_blocks_0_attn_to_q.lora_down.weight": torch.ones(2, 8),
    "lora_unet_blocks_0_attn_to_q.lora_up.weight": torch.ones(8, 2),
    "lora_unet_blocks_11_mlp_fc1.lora_down.weight": torch.ones(2, 8),
    "lora_unet_blocks_11_mlp_fc1.lora_up.weight": torch.ones(16, 2),
}


def test_its_modules_are_the_parameters_that_are_there():
    family = own_family(SHAPES, {"diffusion_model"})

    assert [component.name for component in family.components] == [DENOISER]
    module = family.module(ModuleKey(DENOISER, "blocks.0.attn.to_q"))
    assert module is not None
    assert module.shapes == {"weight": (8, 8), "bias": (8,)}
    assert family.blocks == ("base", "blocks00", "blocks11")
    # The same model is the same family, another one is not, and neither is a row of the table.
    assert own_family(dict(reversed(SHAPES.items())), {"diffusion_model"}).name == family.name
    other = own_family({**SHAPES, "diffusion_model.out.weight": (8, 8, 3, 3)}, {"diffusion_model"})
    assert other.name != family.name
    assert ARCHITECTURES.get(family.name) is family
    assert family.name not in ARCHITECTURES.names


def test_a_file_for_it_is_read_where_the_model_is_connected():
    family = own_family(SHAPES, {"diffusion_model"})

    adapter = map_source(TensorDict(FACTORS), prefer=family.name)

    assert (adapter.architecture, adapter.report.complete) == (family.name, True)
    assert [str(target.module.path) for target, _ in adapter.deltas] == ["blocks.0.attn.to_q", "blocks.11.mlp.fc1"]
    with pytest.raises(UnknownArchitectureError):
        map_source(TensorDict(FACTORS))


def test_it_is_written_in_the_hosts_own_names():
    family = own_family(SHAPES, {"diffusion_model"})

    (content,) = convert(map_source(TensorDict(FACTORS), prefer=family.name), "comfy").contents

    assert "diffusion_model.blocks.0.attn.to_q.lora_A.weight" in content.tensors
    assert map_source(TensorDict(FACTORS), prefer=family.name).report.format == "kohya"


def test_its_text_encoders_are_those_of_a_family_that_has_them():
    sd15 = ARCHITECTURES.get("sd15").component("text_encoder")
    assert sd15 is not None
    clip = {
        f"{sd15.host_prefix}{path}.{name}": shape
        for path, module in sd15.modules.items()
        for name, shape in module.shapes.items()
    }

    family = own_family({**SHAPES, **clip}, {"diffusion_model", "clip_l"})

    assert [component.name for component in family.components] == [DENOISER, "text_encoder"]
    assert family.components[1].modules == sd15.modules


def test_many_models_do_not_fill_the_memory():
    for width in range(1, 60):
        own_family({"diffusion_model.a.weight": (width, 1)}, {"diffusion_model"})

    assert len(ARCHITECTURES) == len(ARCHITECTURES.names)
    assert len(ARCHITECTURES._remembered) <= 32
