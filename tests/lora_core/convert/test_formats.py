"""Every format that is written is read back as the same change of the same parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch

from lora_core.architectures import ARCHITECTURES
from lora_core.convert import WRITERS, convert
from lora_core.errors import ConversionError, UnknownNameError
from lora_core.formats.peft import CONFIG_KEY
from lora_core.io import TensorDict
from lora_core.mapping import map_source
from lora_core.stack import Adapter
from lora_core.types import Shape, Target

Tensors = dict[str, torch.Tensor]


def random(seed: int, **shapes: Shape) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}


def adapter_of(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Adapter:
    return map_source(TensorDict(tensors, "test.safetensors", metadata))


def converted(adapter: Adapter, format: str, dtype: str = "same") -> list[Adapter]:
    """What is read back, an adapter a file."""
    found: list[Adapter] = []
    for content in convert(adapter, format, dtype).contents:
        metadata = dict(content.metadata) | ({CONFIG_KEY: json.dumps(content.config)} if content.config else {})
        tensors = {key: stored.load() for key, stored in content.tensors.items()}
        source = TensorDict(tensors, "new.safetensors", metadata)
        found.append(map_source(source, architecture=adapter.architecture))
        assert found[-1].report.format == format
        assert found[-1].report.complete
    return found


def changed(adapters: list[Adapter], seed: int = 9) -> dict[Target, torch.Tensor]:
    """Every parameter that is changed, after it: random float32 weights with all deltas in order."""
    weights: dict[Target, torch.Tensor] = {}
    architecture = ARCHITECTURES.get(adapters[0].architecture)
    for adapter in adapters:
        for target, delta in adapter.deltas:
            whole = target.whole
            if whole not in weights:
                shape = architecture.shape(whole)
                assert shape is not None
                generator = torch.Generator().manual_seed(seed + len(whole.module.path))
                weights[whole] = torch.randn(shape, generator=generator)
            rows = weights[whole]
            if target.slice is not None:
                rows = rows.narrow(*target.slice)
            rows.copy_(delta.apply(rows.clone(), 1.0))
    return weights


def assert_same(one: list[Adapter], other: list[Adapter], tolerance: float = 1e-5) -> None:
    before, after = changed(one), changed(other)
    assert before.keys() == after.keys()
    for target, weight in before.items():
        torch.testing.assert_close(after[target], weight, rtol=tolerance, atol=tolerance)


LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
DEMO = ARCHITECTURES.get("loom_demo")


def shape_of(name: str) -> Shape:
    """The weight that a kohya name of the demo model means."""
    for component in DEMO.components:
        for module in component.modules.values():
            if f"{component.kohya_prefixes[0]}_{module.diffusers.replace('.', '_')}" == name:
                return module.shapes["weight"]
    raise KeyError(name)


def pair(name: str, rank: int, seed: int = 0, alpha: float | None = None) -> Tensors:
    """Factors of a kohya module of the demo model."""
    out, *inner = shape_of(name)
    made = random(seed, down=(rank, *inner), up=(out, rank, *[1] * (len(inner) - 1)))
    tensors = {f"{name}.lora_down.weight": made["down"], f"{name}.lora_up.weight": made["up"]}
    return tensors | ({f"{name}.alpha": torch.tensor(alpha)} if alpha is not None else {})


# Different ranks and alphas, and a module without one.
MIXED = pair(LINEAR, 4, alpha=6.0) | pair(CONV, 3, seed=1) | pair(TEXT, 8, seed=2, alpha=1.0)


def dora(per_output: bool) -> Tensors:
    tensors = pair(LINEAR, 4, alpha=2.0) | pair(CONV, 4, alpha=2.0)
    for name in (LINEAR, CONV):
        out, into, *kernel = shape_of(name)
        ones = [1] * len(kernel)
        shape = (out, 1, *ones) if per_output else (1, into, *ones)
        tensors[f"{name}.dora_scale"] = random(5, scale=shape)["scale"].abs() + 1
    return tensors


def lycoris(*parts: tuple[str, Shape], alpha: float | None = None) -> Tensors:
    made = random(3, **{role.replace(".", "|"): shape for role, shape in parts})
    tensors = {f"{LINEAR}.{role.replace('|', '.')}": tensor for role, tensor in made.items()}
    return tensors | ({f"{LINEAR}.alpha": torch.tensor(alpha)} if alpha is not None else {})


OUT, IN = shape_of(LINEAR)
CONV_OUT, CONV_IN = shape_of(CONV)[:2]
TUCKER = {
    f"{CONV}.{role}": tensor
    for role, tensor in random(
        4, **{"lora_down.weight": (3, CONV_IN), "lora_up.weight": (CONV_OUT, 3), "lora_mid.weight": (3, 3, 3, 3)}
    ).items()
} | {f"{CONV}.alpha": torch.tensor(1.0)}
LOHA = lycoris(
    ("hada_w1_a", (OUT, 2)), ("hada_w1_b", (2, IN)), ("hada_w2_a", (OUT, 2)), ("hada_w2_b", (2, IN)), alpha=1.0
)
LOKR = lycoris(("lokr_w1", (4, 4)), ("lokr_w2_a", (OUT // 4, 2)), ("lokr_w2_b", (2, IN // 4)), alpha=1.0)
GLORA = lycoris(
    ("a1.weight", (IN, 2)), ("a2.weight", (2, IN)), ("b1.weight", (OUT, 2)), ("b2.weight", (2, IN)), alpha=4.0
)
OFT = lycoris(("oft_blocks", (4, OUT // 4, OUT // 4)), alpha=0.01)
DIFF = lycoris(("diff", (OUT, IN)))
IA3 = lycoris(("weight", (OUT,))) | {f"{LINEAR}.on_input": torch.tensor(False)}


@pytest.mark.parametrize("format", WRITERS)
def test_lora_of_any_rank_and_alpha_is_the_same_in_every_format(format: str) -> None:
    before = adapter_of(MIXED)

    assert_same([before], converted(before, format))


@pytest.mark.parametrize("format", WRITERS)
def test_dora_per_output_is_the_same_in_every_format(format: str) -> None:
    before = adapter_of(dora(per_output=True))

    assert_same([before], converted(before, format))


@pytest.mark.parametrize("format", WRITERS)
def test_the_tucker_form_stays_or_is_multiplied_out(format: str) -> None:
    before = adapter_of(TUCKER)

    assert_same([before], converted(before, format))


@pytest.mark.parametrize(
    "tensors", [dora(False), LOHA, LOKR, GLORA, OFT, DIFF], ids=["dora", "loha", "lokr", "glora", "oft", "diff"]
)
@pytest.mark.parametrize("format", ["kohya", "comfy"])
def test_what_lycoris_knows_keeps_its_type(format: str, tensors: Tensors) -> None:
    before = adapter_of(tensors)
    (after,) = converted(before, format)

    assert [delta.type for _, delta in after.deltas] == [delta.type for _, delta in before.deltas]
    assert_same([before], [after])


@pytest.mark.parametrize(
    "tensors", [dora(False), LOKR, GLORA, OFT, DIFF, IA3], ids=["dora", "lokr", "glora", "oft", "diff", "ia3"]
)
@pytest.mark.parametrize("format", ["diffusers", "peft"])
def test_what_a_format_cannot_say_is_one_line_with_type_and_module(format: str, tensors: Tensors) -> None:
    before = adapter_of(tensors)

    with pytest.raises(ConversionError, match=LINEAR) as caught:
        convert(before, format)

    assert before.deltas[0][1].type in str(caught.value)


def test_loha_in_a_peft_folder_and_ia3_in_kohyas_names() -> None:
    assert_same([adapter_of(LOHA)], converted(adapter_of(LOHA), "peft"))
    assert_same([adapter_of(IA3)], converted(adapter_of(IA3), "kohya"))


def test_kohya_and_comfy_state_an_alpha_for_every_module() -> None:
    (kohya,) = convert(adapter_of(MIXED), "kohya").contents

    alphas = {key: stored.load().item() for key, stored in kohya.tensors.items() if key.endswith(".alpha")}
    # CONV has none in the file: its scale is 1, which is alpha = rank.
    assert alphas == {f"{LINEAR}.alpha": 6.0, f"{CONV}.alpha": 3.0, f"{TEXT}.alpha": 1.0}


def test_rslora_has_its_scale_in_the_alpha() -> None:
    config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True})
    path = "base_model.model.mid_block.attentions.0.proj_in"
    out, *inner = DEMO.components[0].modules["middle_block.1.proj_in"].shapes["weight"]
    made = random(0, down=(4, *inner), up=(out, 4, *[1] * (len(inner) - 1)))
    tensors = {f"{path}.lora_A.weight": made["down"], f"{path}.lora_B.weight": made["up"]}
    before = adapter_of(tensors, {CONFIG_KEY: config})
    (content,) = convert(before, "kohya").contents

    (alpha,) = [stored.load().item() for key, stored in content.tensors.items() if key.endswith(".alpha")]
    assert alpha == 8 * 4**0.5
    assert_same([before], converted(before, "kohya"))


def test_scales_that_are_powers_of_two_are_exact_in_the_factors() -> None:
    """fp16 factors and a scale of 1/64: half of the exponent each, so that small numbers do not fall out of fp16."""
    half = {key: tensor.half() / 500 for key, tensor in pair(LINEAR, 4).items()} | {
        f"{LINEAR}.alpha": torch.tensor(0.0625)
    }
    before = adapter_of(half)
    (after,) = converted(before, "diffusers")

    assert_same([before], [after], tolerance=0)
    assert {ref.dtype for ref in after.deltas[0][1].tensors} == {"F16"}


def test_the_type_of_numbers_is_as_chosen_and_alphas_stay_float32() -> None:
    (content,) = convert(adapter_of(MIXED), "kohya", "fp16").contents

    types = {(key.rsplit(".", 1)[1], stored.load().dtype) for key, stored in content.tensors.items()}
    assert types == {("weight", torch.float16), ("alpha", torch.float32)}


def test_unknown_formats_and_types_name_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'kohya'"):
        convert(adapter_of(MIXED), "koya")
    with pytest.raises(UnknownNameError, match="format to write named 'xlabs'"):
        convert(adapter_of(MIXED), "xlabs")  # read, and not written
    with pytest.raises(UnknownNameError, match="dtype"):
        convert(adapter_of(MIXED), "kohya", "fp8")
