"""Language models as text encoders: names and shapes are those of transformers' classes."""

from __future__ import annotations

import pytest
import torch

from lora_core.architectures import Component, Location
from lora_core.architectures.llm import (
    GEMMA2_2B,
    LLAMA3_8B,
    MISTRAL3_24B,
    QWEN3_06B,
    QWEN3_4B,
    QWEN3_8B,
    QWEN25_VL_7B,
    LlmConfig,
    build,
)
from lora_core.types import TEXT_ENCODER

# transformers' family -> our sizes
FAMILIES = {
    "Llama": LLAMA3_8B,
    "Mistral": MISTRAL3_24B,
    "Qwen2": QWEN25_VL_7B,
    "Qwen3": QWEN3_4B,
    "Gemma2": GEMMA2_2B,
}


def component(config: LlmConfig) -> Component:
    return build(config, TEXT_ENCODER, "llama", ("lora_te",))


def described(component: Component) -> dict[str, tuple[int, ...]]:
    return {
        f"{module.diffusers}.{parameter}": shape
        for module in component.modules.values()
        for parameter, shape in module.shapes.items()
    }


def published(family: str, config: LlmConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of transformers' model of these sizes."""
    import transformers

    settings = getattr(transformers, f"{family}Config")(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{family}Model")(settings)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_are_those_of_transformers(family: str) -> None:
    assert described(component(FAMILIES[family])) == published(family, FAMILIES[family])


def test_sizes_are_those_of_the_models_names() -> None:
    """Counted in billions of parameters; the largest models are named by it, embedding included."""

    def billions(config: LlmConfig) -> float:
        return sum(torch.Size(shape).numel() for shape in described(component(config)).values()) / 1e9

    # The head is tied to the embedding in Qwen3 0.6B and 4B and Gemma; the others have one more that is not here.
    assert billions(QWEN3_06B) == pytest.approx(0.6, abs=0.05)
    assert billions(QWEN3_4B) == pytest.approx(4.02, abs=0.05)
    assert billions(GEMMA2_2B) == pytest.approx(2.61, abs=0.05)
    assert billions(LLAMA3_8B) + LLAMA3_8B.vocabulary * LLAMA3_8B.width / 1e9 == pytest.approx(8.03, abs=0.05)
    assert billions(QWEN3_8B) + QWEN3_8B.vocabulary * QWEN3_8B.width / 1e9 == pytest.approx(8.19, abs=0.05)


def test_a_file_may_name_a_layer_as_any_of_the_classes_does() -> None:
    names = component(QWEN3_06B)
    layer = "layers.5.self_attn.q_proj"
    for stem in ("", "model.", "language_model.", "model.language_model."):
        assert names.paths[stem + layer] == Location(f"model.{layer}")
    assert names.host_prefix + f"model.{layer}" == f"llama.transformer.model.{layer}"


def test_queries_may_be_wider_than_the_model_and_keys_narrower() -> None:
    modules = component(QWEN3_06B).modules
    assert modules["model.layers.0.self_attn.q_proj"].shapes == {"weight": (2048, 1024)}
    assert modules["model.layers.0.self_attn.k_proj"].shapes == {"weight": (1024, 1024)}
    assert modules["model.layers.0.self_attn.q_norm"].shapes == {"weight": (128,)}
