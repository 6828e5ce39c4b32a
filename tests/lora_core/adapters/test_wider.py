"""LoRA that gives a layer more inputs: the weight is padded, and the other deltas of a stack keep to their inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_models
from deltas import Random, delta_of, deltas, patch_of
from lora_core.errors import ShapeMismatchError
from lora_core.merge import merge_to_checkpoint, open_checkpoint
from lora_core.patching import apply_patch, bind

Tensors = dict[str, torch.Tensor]


def wide(random: Random, inputs: int = 8, role: str = "wide_down") -> Tensors:
    """BFL's way for a weight of shape (6, 4); ``role`` "down" makes it ComfyUI's."""
    made = {"up": random.tensor(6, 2), role: random.tensor(2, inputs)}
    return made if role == "wide_down" else made | {"reshape_weight": torch.tensor([6, inputs])}


@pytest.mark.parametrize(("kind", "role"), [("lora_wider_bfl", "wide_down"), ("lora_wider", "down")])
def test_the_weight_is_padded_with_zeros_and_the_product_added(kind: str, role: str) -> None:
    random = Random.seeded()
    weight, roles = random.tensor(6, 4), wide(random, role=role)
    delta = delta_of(kind, roles, (6, 4), alpha=1.0)
    patch = patch_of(weight, (delta, 0.7))
    assert (delta.shape_after((6, 4)), patch.result) == ((6, 8), (6, 8))
    padded = torch.cat([weight, torch.zeros(6, 4)], dim=1)
    torch.testing.assert_close(apply_patch(weight, patch), padded + 0.35 * roles["up"] @ roles[role])


def test_it_may_be_as_wide_as_the_weight() -> None:
    """A LoRA of the same names on a model that has the inputs is an ordinary one."""
    roles = wide(Random.seeded(), inputs=4)
    delta = delta_of("lora_wider_bfl", roles, (6, 4))
    assert delta.shape_after((6, 4)) == (6, 4)
    torch.testing.assert_close(delta.apply(torch.zeros(6, 4), 1.0), roles["up"] @ roles["wide_down"])


def test_a_model_that_has_the_inputs_already_is_not_padded() -> None:
    random = Random.seeded()
    weight, roles = random.tensor(6, 8), wide(random)
    patch = patch_of(weight, (delta_of("lora_wider_bfl", roles, (6, 4)), 1.0))
    assert patch.result == (6, 8)
    torch.testing.assert_close(apply_patch(weight, patch), weight + roles["up"] @ roles["wide_down"])


def test_in_a_stack_the_others_keep_to_the_inputs_they_know() -> None:
    """Additive ones, DoRA, which depends on the weight, and another that is wide, but less so."""
    random = Random.seeded()
    weight, first, second = random.tensor(6, 4), wide(random, 8), wide(random, 5)
    lora, dora = random.lora((6, 4), 2), random.dora((6, 4), 2)
    patch = patch_of(
        weight,
        (lora, 0.5),
        (delta_of("lora_wider_bfl", first, (6, 4)), 1.0),
        (dora, 0.8),
        (delta_of("lora_wider_bfl", second, (6, 4)), -0.3),
    )
    expected = torch.cat([lora.apply(weight, 0.5), torch.zeros(6, 4)], dim=1) + first["up"] @ first["wide_down"]
    expected[:, :4] = dora.apply(expected[:, :4], 0.8)
    expected[:, :5] -= 0.3 * second["up"] @ second["wide_down"]
    assert patch.result == (6, 8)
    torch.testing.assert_close(apply_patch(weight, patch), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_dtypes_round_once(dtype: torch.dtype) -> None:
    random = Random.seeded()
    weight = random.tensor(6, 4, size=0.3).to(dtype)
    patch = patch_of(weight, (delta_of("lora_wider_bfl", wide(random), (6, 4)), 0.3))
    exact = apply_patch(weight.float(), patch)
    assert torch.equal(apply_patch(weight, patch), exact.to(dtype))


def test_the_bias_of_the_up_factor() -> None:
    roles = wide(Random.seeded()) | {"up_bias": torch.arange(6.0)}
    made = deltas("lora_wider_bfl", roles, {"weight": (6, 4), "bias": (6,)})
    assert made["bias"].apply(torch.ones(6), 2.0).tolist() == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]


@pytest.mark.parametrize(
    ("kind", "weight", "roles", "key"),
    [
        ("lora_wider_bfl", (6, 4), {"up": (6, 2), "wide_down": (2, 3)}, "wide_down"),  # fewer inputs
        ("lora_wider_bfl", (5, 4), {"up": (6, 2), "wide_down": (2, 8)}, "up"),
        ("lora_wider_bfl", (6, 4), {"up": (6, 3), "wide_down": (2, 8)}, "up"),
        ("lora_wider_bfl", (6, 4, 1, 1), {"up": (6, 2), "wide_down": (2, 8)}, "wide_down"),  # a convolution
        ("lora_wider_bfl", (6,), {"up": (6, 2), "wide_down": (2, 8)}, "wide_down"),
        ("lora", (6, 4), {"up": (6, 2), "down": (2, 8)}, "down"),  # only where the file says that it is meant
    ],
)
def test_shapes_that_do_not_fit(
    kind: str, weight: tuple[int, ...], roles: dict[str, tuple[int, ...]], key: str
) -> None:
    with pytest.raises(ShapeMismatchError, match=f"{key}: expected"):
        delta_of(kind, {role: torch.zeros(shape) for role, shape in roles.items()}, weight)


@pytest.mark.parametrize("stated", [[6, 9], [4, 8], [6], [6, 8, 1], [float("nan"), 8.0]], ids=str)
def test_a_stated_shape_that_the_factors_do_not_have(stated: list[float]) -> None:
    roles = wide(Random.seeded(), role="down") | {"reshape_weight": torch.tensor(stated)}
    with pytest.raises(ShapeMismatchError, match=r"reshape_weight: expected \(6, 8\)"):
        delta_of("lora_wider", roles, (6, 4))


NAME, KEY = "lora_unet_time_embed_0", "model.diffusion_model.time_embed.0.weight"


def control(shape: tuple[int, int], inputs: int) -> Tensors:
    """A file that gives a layer of the small model more inputs, and an ordinary LoRA of another."""
    out, _ = shape
    made = {"lora_up.weight": small_models.random((out, 4), 1), "lora_down.weight": small_models.random((4, inputs), 2)}
    made["reshape_weight"] = torch.tensor([out, inputs])
    return {f"{NAME}.{suffix}": tensor for suffix, tensor in made.items()} | small_models.lora_tensors(
        only="attn1_to_q"
    )


def test_a_merge_writes_the_larger_tensor(tmp_path: Path) -> None:
    base = small_models.write_checkpoint(tmp_path / "base.safetensors")
    out, into = base[KEY].shape
    adapter = small_models.adapter(control((out, into), 2 * into))
    assert not adapter.report.unmatched
    merge_to_checkpoint(tmp_path / "base.safetensors", small_models.stack_of(adapter), tmp_path / "merged.safetensors")
    merged = load_file(tmp_path / "merged.safetensors")
    assert tuple(merged[KEY].shape) == (out, 2 * into)
    checkpoint = open_checkpoint(tmp_path / "base.safetensors")
    patches = bind(small_models.stack_of(adapter), checkpoint.shape_of).patches
    for target, patch in patches.items():
        key = checkpoint.places[target].key
        assert torch.equal(merged[key], apply_patch(base[key], patch))


def test_binding_takes_a_model_that_has_the_inputs_already() -> None:
    """The control model itself: the LoRA was checked against its family, which has half as many."""
    shapes = {key: tuple(tensor.shape) for key, tensor in small_models.checkpoint_tensors().items()}
    out, into = shapes[KEY]
    stack = small_models.stack_of(small_models.adapter(control((out, into), 2 * into)))
    for inputs, fits in ((into, True), (2 * into, True), (3 * into, False)):
        model = shapes | {KEY: (out, inputs)}
        binding = bind(stack, lambda target, model=model: model.get(small_models.DEMO.place(target).key))
        assert binding.reports[0].complete is fits
        if fits:
            [patch] = [patch for patch in binding.patches.values() if patch.target.module.path == "time_embed.0"]
            assert (patch.shape, patch.result) == ((out, inputs), (out, 2 * into))
