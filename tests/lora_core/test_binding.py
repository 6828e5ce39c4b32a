"""Which delta goes to which parameter, how strongly, and what is said about those that go nowhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lora_core import Adapter, Slice, Stack, StackEntry, Strengths, map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import WrongBaseError
from lora_core.io import TensorDict
from lora_core.patching import bind
from lora_core.types import Misfit, ModuleKey, Shape, Target

SD15 = ARCHITECTURES.get("sd15")

QUERY = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"  # 320 x 320, block in01
MIDDLE = "lora_unet_middle_block_1_proj_in"  # 1280 x 1280 (x 1 x 1), block mid
CONV_IN = "lora_unet_input_blocks_0_0"  # 320 x 4 x 3 x 3, block in00
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"  # 3072 x 768
SHAPES = {QUERY: (320, 320), MIDDLE: (1280, 1280), CONV_IN: (320, 4, 3, 3), TEXT: (3072, 768)}

QUERY_TARGET = Target(ModuleKey("denoiser", "input_blocks.1.1.transformer_blocks.0.attn1.to_q"))
MIDDLE_TARGET = Target(ModuleKey("denoiser", "middle_block.1.proj_in"))
CONV_IN_TARGET = Target(ModuleKey("denoiser", "input_blocks.0.0"))
TEXT_TARGET = Target(ModuleKey("text_encoder", "text_model.encoder.layers.0.mlp.fc1"))


def adapter_of(*names: str, file: str = "ink.safetensors", architecture: str = "sd15") -> Adapter:
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        out, *inner = SHAPES[name]
        tensors[f"{name}.lora_down.weight"] = torch.ones(2, *inner)
        tensors[f"{name}.lora_up.weight"] = torch.ones(out, 2)
    return map_source(TensorDict(tensors, file), architecture)


def stack_of(adapter: Adapter, strengths: Strengths = Strengths()) -> Stack:  # noqa: B008  frozen
    return Stack((StackEntry(adapter, strengths),))


def only(*components: str) -> Callable[[Target], Shape | None]:
    """A model that has these components and nothing else."""
    return lambda target: SD15.shape(target) if target.module.component in components else None


def test_a_stack_becomes_one_patch_a_parameter() -> None:
    first, second = adapter_of(QUERY, TEXT), adapter_of(QUERY, file="oil.safetensors")
    stack = Stack((StackEntry(first, Strengths(model=0.8, clip=0.5)), StackEntry(second, Strengths(model=-0.3))))
    binding = bind(stack, SD15.shape, SD15)
    assert set(binding.patches) == {QUERY_TARGET, TEXT_TARGET}
    patch = binding.patches[QUERY_TARGET]
    assert (patch.target, patch.shape) == (QUERY_TARGET, (320, 320))
    assert [(part.file, part.strength, part.slice) for part in patch.parts] == [
        ("ink.safetensors", 0.8, None),
        ("oil.safetensors", -0.3, None),
    ]
    assert [part.strength for part in binding.patches[TEXT_TARGET].parts] == [0.5]
    ink, oil = binding.reports
    assert (ink.file, ink.fitting, ink.total, ink.complete) == ("ink.safetensors", 2, 2, True)
    assert (oil.file, oil.fitting, oil.total) == ("oil.safetensors", 1, 1)


def test_block_factors_multiply_the_strength() -> None:
    strengths = Strengths(model=0.8, blocks={"in01": 0.5, "mid": 0.0})
    patches = bind(stack_of(adapter_of(QUERY, MIDDLE, CONV_IN), strengths), SD15.shape, SD15).patches
    assert {target: patch.parts[0].strength for target, patch in patches.items()} == {
        QUERY_TARGET: 0.4,  # 0.8 * 0.5
        CONV_IN_TARGET: 0.8,  # not named: factor 1
        # mid has factor 0: no patch at all
    }


def test_a_component_may_have_a_strength_of_its_own() -> None:
    strengths = Strengths(model=1.0, clip=0.5, components={"text_encoder": 0.25})
    patches = bind(stack_of(adapter_of(QUERY, TEXT), strengths), SD15.shape, SD15).patches
    assert patches[TEXT_TARGET].parts[0].strength == 0.25


def test_strength_zero_is_exactly_the_base() -> None:
    binding = bind(stack_of(adapter_of(QUERY, TEXT), Strengths(model=0.0, clip=0.0)), SD15.shape, SD15)
    assert binding.patches == {}
    assert (binding.reports[0].fitting, binding.reports[0].total) == (2, 2)


def test_a_component_that_is_not_there_is_no_fault() -> None:
    """CLIP is not connected: its modules are counted apart."""
    [report] = bind(stack_of(adapter_of(QUERY, TEXT)), only("denoiser"), SD15).reports
    assert (report.fitting, report.total, report.absent) == (1, 2, {"text_encoder": 1})
    assert report.complete


def test_a_module_that_the_model_lacks_is_named() -> None:
    def without_middle(target: Target) -> Shape | None:
        return None if target.module.path.startswith("middle_block") else SD15.shape(target)

    binding = bind(stack_of(adapter_of(QUERY, MIDDLE)), without_middle, SD15)
    [report] = binding.reports
    assert set(binding.patches) == {QUERY_TARGET}
    assert (report.fitting, report.total) == (1, 2)
    assert report.missing == {"denoiser.middle_block.1.proj_in": "the model has no weight of this name"}
    assert not report.complete


def test_the_model_at_hand_decides_about_shapes() -> None:
    """An inpainting model has nine latent channels, its other weights are an ordinary model's."""

    def inpainting(target: Target) -> Shape | None:
        return (320, 9, 3, 3) if target == CONV_IN_TARGET else SD15.shape(target)

    binding = bind(stack_of(adapter_of(QUERY, CONV_IN)), inpainting, SD15)
    [report] = binding.reports
    assert set(binding.patches) == {QUERY_TARGET}
    assert report.misfits == (Misfit("denoiser.input_blocks.0.0.weight", (320, 9, 3, 3), (320, 4, 3, 3)),)
    assert (report.fitting, report.total, report.complete) == (1, 2, False)


def test_a_projection_may_be_linear_or_a_1x1_convolution() -> None:
    binding = bind(stack_of(adapter_of(MIDDLE)), lambda target: (1280, 1280), SD15)
    assert binding.patches[MIDDLE_TARGET].shape == (1280, 1280)
    assert binding.reports[0].complete


def test_slices_are_patched_within_the_whole_parameter() -> None:
    [(target, delta)] = adapter_of(QUERY).deltas
    parts = [target._replace(slice=Slice(0, start, 160)) for start in (0, 160)]
    adapter = Adapter(tuple((part, delta) for part in parts), {}, adapter_of(QUERY).report)
    binding = bind(stack_of(adapter), SD15.shape, SD15)
    [patch] = binding.patches.values()
    assert patch.target == QUERY_TARGET
    assert [part.slice for part in patch.parts] == [Slice(0, 0, 160), Slice(0, 160, 160)]
    assert binding.reports[0].total == 2  # two modules of the file


def test_a_slice_beyond_the_parameter_does_not_fit() -> None:
    [(target, delta)] = adapter_of(QUERY).deltas
    adapter = Adapter(((target._replace(slice=Slice(0, 160, 320)), delta),), {}, adapter_of(QUERY).report)
    [report] = bind(stack_of(adapter), SD15.shape, SD15).reports
    assert [misfit.expected for misfit in report.misfits] == [(320, 320)]


def test_another_base_is_an_error_that_says_so() -> None:
    """One of these modules has other widths in SD 1.5, the other is not there."""
    deep = "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q"
    wide = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{deep}.lora_down.weight": torch.ones(2, 1280),
        f"{deep}.lora_up.weight": torch.ones(1280, 2),
        f"{wide}.lora_down.weight": torch.ones(2, 2048),
        f"{wide}.lora_up.weight": torch.ones(640, 2),
    }
    sdxl = map_source(TensorDict(tensors, "ink.safetensors"), "sdxl")
    expected = r"^ink\.safetensors: made for SDXL, the model is SD 1\.5: 0 of 2 modules fit\."
    with pytest.raises(WrongBaseError, match=expected) as caught:
        bind(stack_of(sdxl), SD15.shape, SD15)
    assert (caught.value.fitting, caught.value.total) == (0, 2)


def test_an_unknown_model_takes_what_fits() -> None:
    """A caller that does not know the architecture binds by names and shapes alone."""
    assert set(bind(stack_of(adapter_of(QUERY)), SD15.shape).patches) == {QUERY_TARGET}


def test_an_empty_stack() -> None:
    binding = bind(Stack(), SD15.shape, SD15)
    assert (binding.patches, binding.reports) == ({}, ())


def test_a_component_at_hand_without_the_module_is_a_miss_not_an_absence() -> None:
    """A UNet without a middle block, as SSD-1B's: the file's only module is missing, although a UNet is connected."""
    none = bind(stack_of(adapter_of(MIDDLE)), lambda target: None, SD15, given={"denoiser"})
    [report] = none.reports
    assert report.absent == {}
    assert not report.complete
    assert (report.fitting, report.total) == (0, 1)


def test_a_text_encoder_goes_by_its_name_not_by_its_number() -> None:
    """FLUX.1 has CLIP-L and T5, Chroma T5 alone; what is meant for CLIP-L is for nothing there."""
    t5 = "encoder.block.0.layer.0.SelfAttention.q"
    sizes = {
        "lora_unet_double_blocks_0_img_attn_proj": (3072, 3072),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": (3072, 768),
        f"lora_te2_{t5.replace('.', '_')}": (4096, 4096),
    }
    tensors = {f"{name}.lora_down.weight": torch.ones(2, inner) for name, (_, inner) in sizes.items()}
    tensors |= {f"{name}.lora_up.weight": torch.ones(out, 2) for name, (out, _) in sizes.items()}
    adapter = map_source(TensorDict(tensors, "ink.safetensors"), "flux")
    chroma = ARCHITECTURES.get("chroma")

    binding = bind(stack_of(adapter), chroma.shape, chroma)

    assert {target.module for target in binding.patches} == {
        ModuleKey("denoiser", "double_blocks.0.img_attn.proj"),
        ModuleKey("text_encoder", t5),
    }
    assert binding.reports[0].absent == {"text_encoder": 1}
    assert binding.reports[0].complete
