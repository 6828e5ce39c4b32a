"""Keys as files have them, split into a module's name and a role."""

from __future__ import annotations

import pytest

from lora_core.formats import FORMATS, Embedded, Ignored, NamedRole

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
FLAT = ATTENTION.replace(".", "_")
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn"

KOHYA = {
    f"lora_unet_{FLAT}_to_q.lora_down.weight": (f"lora_unet_{FLAT}_to_q", "down"),
    f"lora_unet_{FLAT}_to_q.alpha": (f"lora_unet_{FLAT}_to_q", "alpha"),
    f"lora_unet_{FLAT}_to_q.dora_scale": (f"lora_unet_{FLAT}_to_q", "dora_scale"),
    "lora_unet_conv_in.lora_mid.weight": ("lora_unet_conv_in", "mid"),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.diff_b": ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "diff_b"),
    # half-flattened: diffusers' conversion replaced all dots but the last few
    f"lora_unet_{FLAT}.to_k.lora_magnitude_vector": (f"lora_unet_{FLAT}_to_k", "magnitude"),
    f"lora_unet_{FLAT}_to_out.0.lora_magnitude_vector": (f"lora_unet_{FLAT}_to_out_0", "magnitude"),
    # a trailing underscore, kohya-ss/sd-scripts issue 1463
    f"lora_unet_{FLAT}_to_out_0_.lora_up.weight": (f"lora_unet_{FLAT}_to_out_0", "up"),
}

DIFFUSERS = {
    f"unet.{ATTENTION}.to_q.lora_A.weight": (f"unet.{ATTENTION}.to_q", "down"),
    f"unet.{ATTENTION}.to_q.lora_B.weight": (f"unet.{ATTENTION}.to_q", "up"),
    f"unet.{ATTENTION}.to_q.lora_magnitude_vector": (f"unet.{ATTENTION}.to_q", "magnitude"),
    f"unet.{ATTENTION}.to_q.lora_magnitude_vector.weight": (f"unet.{ATTENTION}.to_q", "magnitude"),
    f"unet.{ATTENTION}.to_q.lora.down.weight": (f"unet.{ATTENTION}.to_q", "down"),
    f"{ATTENTION}.processor.to_q_lora.up.weight": (f"{ATTENTION}.to_q", "up"),
    f"{ATTENTION}.processor.to_out_lora.up.weight": (f"{ATTENTION}.to_out.0", "up"),
    f"{TEXT}.k_proj.lora_linear_layer.down.weight": (f"{TEXT}.k_proj", "down"),
    f"{TEXT}.to_out_lora.down.weight": (f"{TEXT}.out_proj", "down"),
    f"{TEXT}.k_proj.to_k_lora.down.weight": (f"{TEXT}.k_proj", "down"),
    # names of a training run that leaked into a file, huggingface/diffusers issue 6382
    "down_blocks.0.resnets.0.conv1.lora_A_1.default_0.weight": ("down_blocks.0.resnets.0.conv1", "down"),
}


@pytest.mark.parametrize("key", KOHYA)
def test_kohya(key: str) -> None:
    assert FORMATS.get("kohya").split(key) == NamedRole(*KOHYA[key])


@pytest.mark.parametrize("key", DIFFUSERS)
def test_diffusers(key: str) -> None:
    assert FORMATS.get("diffusers").split(key) == NamedRole(*DIFFUSERS[key])


OTHERS = {
    "unet.base_model.model.conv_in.lora_A.default.weight": ("peft", "unet.base_model.model.conv_in", "down"),
    "base_model.model.conv_in.lokr_w1": ("peft", "base_model.model.conv_in", "lokr_w1"),
    "base_model.model.proj.lora_B.pirate.weight": ("peft", "base_model.model.proj", "up"),
    "diffusion_model.blocks.0.self_attn.q.lora_up.weight": ("comfy", "diffusion_model.blocks.0.self_attn.q", "up"),
    "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight": (
        "comfy", "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q", "down"
    ),
    "double_blocks.0.processor.qkv_lora1.down.weight": ("xlabs", "double_blocks.0.processor.qkv_lora1", "down"),
    "unet:12:up": ("cloneofsimo", "unet:12", "up"),
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.2.weight": (
        "kohya", "lora_unet_double_blocks_0_img_attn_qkv", "down.2"
    ),
    "oft_unet_single_blocks_35_linear1.oft_blocks.3": (
        "kohya", "oft_unet_single_blocks_35_linear1", "kohya_oft_blocks.3"
    ),
    "lora_te_text_model_encoder_layers_0_mlp_fc2.weight": (
        "kohya", "lora_te_text_model_encoder_layers_0_mlp_fc2", "ia3_weight"
    ),
    "lora_unet__blocks_0_self_attn_q.alpha": ("kohya", "lora_unet_blocks_0_self_attn_q", "alpha"),
    "lycoris_transformer_blocks_0_attn_to_q.lokr_w1": ("kohya", "lycoris_transformer_blocks_0_attn_to_q", "lokr_w1"),
}  # fmt: skip


@pytest.mark.parametrize("key", OTHERS)
def test_other_formats(key: str) -> None:
    scheme, *found = OTHERS[key]
    assert FORMATS.get(scheme).split(key) == NamedRole(*found)


# They differ in the modules' names alone, which an architecture has to tell.
SAME_KEYS = {"diffusers", "original", "omi"}


@pytest.mark.parametrize("key", [*KOHYA, *DIFFUSERS, *OTHERS])
def test_a_key_belongs_to_one_format(key: str) -> None:
    found = {scheme.name for scheme in FORMATS if isinstance(scheme.split(key), NamedRole)}
    assert len(found) == 1 or found == SAME_KEYS


@pytest.mark.parametrize("scheme", FORMATS, ids=lambda scheme: scheme.name)
def test_no_format_takes_what_is_no_lora(scheme) -> None:
    keys = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "emb_params",
        "string_to_param",
        "",
        ".",
        "alpha",
    ]
    assert scheme.recognise(dict.fromkeys(keys)) == 0
    assert scheme.recognise({}) == 0


def test_dead_pairs_of_one_diffusers_version_are_ignored_with_the_reason() -> None:
    found = FORMATS.get("diffusers").split(f"{TEXT}.k_proj.to_q_lora.down.weight")
    assert isinstance(found, Ignored)
    assert "q adapter below k_proj" in found.reason


def test_a_bundled_embedding_may_have_a_space_in_its_token() -> None:
    found = FORMATS.get("kohya").split("bundle_emb.ema yasuhara.clip_l")
    assert found == Embedded("ema yasuhara", "clip_l")


def test_a_bundled_embedding_may_be_written_as_in_a_file_of_its_own() -> None:
    """Files of embeddings for one encoder have one tensor, ``*`` of ``string_to_param``."""
    key = "bundle_emb.ink.string_to_param.*"
    kohya = FORMATS.get("kohya")
    assert kohya.split(key) == Embedded("ink", "*")
    assert kohya.writing is not None
    assert kohya.writing.embedding is not None
    assert kohya.writing.embedding("ink", "*") == key
