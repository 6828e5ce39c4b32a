"""Names from bug reports about FLUX and SD 3 mean a module of these families, in one format or another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_core.architectures import ARCHITECTURES
from lora_core.formats import FORMATS
from lora_core.formats.base import NamedRole

# Base in the list of reports -> families that it may mean.
BASES = {
    "flux": ("flux",),
    "flux/sd3": ("flux", "sd3"),
    "flux2": ("flux2",),
    "sd3": ("sd3",),
    "sd35": ("sd35_medium",),
}


def module(family: str, key: str) -> str | None:
    """Canonical path of the module that a key names."""
    for scheme in FORMATS:
        found = scheme.split(key)
        if isinstance(found, NamedRole):
            located = scheme.names(ARCHITECTURES.get(family)).get(found.name)
            if located is not None:
                return located.module.path
    return None


@pytest.mark.parametrize("base", BASES)
def test_each_key_of_a_report_names_a_module(base: str, keys: Path):
    cases = [case for case in json.loads((keys / "hard_cases.json").read_text()) if case["base"] == base]
    reported = [key for case in cases for key in case["keys"]]

    assert reported
    # One report gives a module without the end of a key.
    whole = [f"{key}.alpha" if key.endswith("to_qkv_mlp_proj") else key for key in reported]
    nowhere = [key for key in whole if not any(module(family, key) for family in BASES[base])]
    assert nowhere == []


def test_text_encoders_of_sd_3_have_onetrainers_numbers():
    assert module("sd3", "lora_te1_text_projection.alpha") == "text_projection"
    assert module("sd3", "lora_te3_encoder_block_15_layer_0_SelfAttention_k.lora_up.weight") == (
        "encoder.block.15.layer.0.SelfAttention.k"
    )
    assert module("flux", "lora_te2_encoder_block_15_layer_1_DenseReluDense_wi_0.alpha") == (
        "encoder.block.15.layer.1.DenseReluDense.wi_0"
    )
