"""What every adapter type has in common: a sample of each row of the table, through the same questions.

A new type brings a sample here. Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): the
same sums in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltas import Random, deltas
from lora_core.adapters import ADAPTER_TYPES, AdditiveDelta, Delta
from lora_core.errors import ShapeMismatchError
from lora_core.types import Shape

OUT, IN = 12, 20
WEIGHT = {"weight": (OUT, IN), "bias": (OUT,)}
NORM = {"weight": (OUT,), "bias": (OUT,)}
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Sample:
    """One module's tensors by their shapes, and the parameters that they change. Values are random.

    Args:
        roles: role -> shape.
        parameters: of the module.
        apart: whether its rows change apart.
        values: of roles that are not random.
    """

    roles: Shapes
    parameters: Shapes = field(default_factory=lambda: WEIGHT)
    apart: bool = True
    values: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def tensors(self) -> dict[str, torch.Tensor]:
        random = Random.seeded()
        made = {role: random.tensor(*shape, size=0.3) for role, shape in self.roles.items()}
        return {**made, **self.values}

    def deltas(self, kind: str) -> Mapping[str, Delta]:
        return deltas(kind, self.tensors(), self.parameters, alpha=3.0)


LORA = {"down": (4, IN), "up": (OUT, 4)}
LOHA = {"hada_w1_a": (OUT, 2), "hada_w1_b": (2, IN), "hada_w2_a": (OUT, 2), "hada_w2_b": (2, IN)}
LOKR = {"lokr_w1": (3, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 5)}
BLOCKS = {"oft_blocks": (3, 4, 4)}
SAMPLES = {
    "dora": Sample({**LORA, "dora_scale": (OUT, 1)}),
    "dora_peft": Sample({**LORA, "magnitude": (OUT,), "up_bias": (OUT,)}),
    "loha+dora": Sample({**LOHA, "dora_scale": (OUT,)}),
    "lokr+dora": Sample({**LOKR, "dora_scale": (1, IN)}, apart=False),
    "lora": Sample({**LORA, "up_bias": (OUT,)}),
    "adalora": Sample({**LORA, "lora_E": (4, 1)}),
    "lora_split": Sample({"down.0": (2, IN), "up.0": (8, 2), "down.1": (2, IN), "up.1": (4, 2)}),
    "lora_wider": Sample(LORA, values={"reshape_weight": torch.tensor([OUT, IN])}),
    "lora_wider_bfl": Sample({"wide_down": (4, IN), "up": (OUT, 4)}),
    "loha": Sample(LOHA),
    "lokr": Sample(LOKR),
    "glora": Sample({"a1.weight": (IN, 2), "a2.weight": (2, IN), "b1.weight": (OUT, 2), "b2.weight": (2, IN)}),
    "ia3": Sample({"ia3_weight": (OUT,)}, values={"on_input": torch.tensor(0)}),
    "ia3_peft": Sample({"ia3_l": (1, IN)}),
    "full": Sample({"diff": (OUT, IN), "diff_b": (OUT,)}),
    "bias": Sample({"diff_b": (OUT,)}),
    "modulation": Sample({"diff_m": (1, 6, OUT)}, {"modulation": (1, 6, OUT)}),
    "norm": Sample({"w_norm": (OUT,), "b_norm": (OUT,)}, NORM),
    "norm_bias": Sample({"b_norm": (OUT,)}, NORM),
    "replacement": Sample({"set_weight": (OUT,)}, NORM),
    "diag-oft": Sample(BLOCKS),
    "boft": Sample({"oft_blocks": (2, 6, 2, 2)}),
    "oft-diag": Sample({"oft_diag": (3, 4, 4)}),
    "kohya-oft": Sample({"kohya_oft_blocks": (3, 4, 4)}),
    "oft2": Sample({"oft_R": (5, 6)}),
    "peft-oft": Sample({"peft_oft_R": (5, 6)}),
    "peft-oft-old": Sample({"oft_r": (3, 4, 4)}),
    "peft-boft": Sample({"boft_R": (1, 5, 4, 4), "boft_s": (OUT, 1)}),
    "hra": Sample({"hra_u": (IN, 2)}),
}
kinds = pytest.mark.parametrize("kind", SAMPLES)
# Rows that blocks of 4 hold apart.
START, LENGTH = 4, 8


def test_there_is_a_sample_of_each() -> None:
    assert set(SAMPLES) == set(ADAPTER_TYPES.names)


@kinds
def test_the_roles_alone_say_the_type(kind: str) -> None:
    """The type that takes most of them is the one, and takes all. (BOFT's are diag-OFT's, with one dimension more.)"""
    roles = frozenset(SAMPLES[kind].tensors())
    takes = {row.name: row.takes(roles) for row in ADAPTER_TYPES}
    assert max(takes, key=lambda name: len(takes[name])) == ("diag-oft" if kind == "boft" else kind)
    assert takes[kind] == roles


@kinds
def test_strength_zero_is_exactly_the_base(kind: str) -> None:
    for parameter, delta in SAMPLES[kind].deltas(kind).items():
        weight = Random.seeded(1).tensor(*SAMPLES[kind].parameters[parameter])
        assert torch.equal(delta.apply(weight, 0.0), weight)
        assert (delta.apply(weight, 1.0) - weight).abs().max() > 0.01


@kinds
def test_strength_zero_of_a_file_with_infinities_too(kind: str) -> None:
    sample = SAMPLES[kind]
    roles = {
        role: torch.full_like(tensor, torch.inf) if tensor.is_floating_point() else tensor
        for role, tensor in sample.tensors().items()
    }
    for parameter, delta in deltas(kind, roles, sample.parameters).items():
        weight = Random.seeded(1).tensor(*sample.parameters[parameter])
        assert torch.equal(delta.apply(weight, 0.0), weight)


@kinds
@pytest.mark.parametrize("strength", [-0.7, 0.5, 1.6])
def test_the_strength_is_the_way_from_the_base_to_the_result(kind: str, strength: float) -> None:
    for parameter, delta in SAMPLES[kind].deltas(kind).items():
        weight = Random.seeded(1).tensor(*SAMPLES[kind].parameters[parameter])
        expected = weight + strength * (delta.apply(weight, 1.0) - weight)
        torch.testing.assert_close(delta.apply(weight, strength), expected)


@kinds
def test_nothing_that_it_reads_is_written_to(kind: str) -> None:
    """Tensors of files and of the host may be read-only maps."""
    sample = SAMPLES[kind]
    tensors = sample.tensors()
    kept = {role: tensor.clone() for role, tensor in tensors.items()}
    for parameter, delta in deltas(kind, tensors, sample.parameters, alpha=3.0).items():
        weight = Random.seeded(1).tensor(*sample.parameters[parameter])
        before = weight.clone()
        delta.apply(weight, 0.5)
        if isinstance(delta, AdditiveDelta):
            delta.difference("cpu", torch.float32)
        assert torch.equal(weight, before)
    assert all(torch.equal(tensors[role], tensor) for role, tensor in kept.items())


@kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str)
def test_tensors_of_any_dtype_are_computed_in_the_weights(kind: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[kind]
    stored = {role: t.to(dtype) if t.is_floating_point() else t for role, t in sample.tensors().items()}
    widened = {role: t.float() if t.is_floating_point() else t for role, t in stored.items()}
    exact = deltas(kind, widened, sample.parameters, alpha=3.0)
    for parameter, delta in deltas(kind, stored, sample.parameters, alpha=3.0).items():
        weight = Random.seeded(1).tensor(*sample.parameters[parameter])
        result = delta.apply(weight, 0.5)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, exact[parameter].apply(weight, 0.5))
        assert delta.apply(weight.double(), 0.5).dtype == torch.float64


@kinds
def test_rows_are_the_rows_of_the_whole(kind: str) -> None:
    """A file has q, k and v in one matrix, the model in three; and rows of rows are rows too."""
    sample = SAMPLES[kind]
    for parameter, delta in sample.deltas(kind).items():
        weight = Random.seeded(1).tensor(*sample.parameters[parameter])
        if weight.shape[0] != OUT:
            continue
        part = delta.rows(START, LENGTH)
        if parameter == "weight" and not sample.apart:
            assert part is None
            continue
        assert part is not None
        whole, rows = delta.apply(weight, 0.7), weight[START : START + LENGTH]
        torch.testing.assert_close(part.apply(rows, 0.7), whole[START : START + LENGTH])
        inner = part.rows(4, 4)
        assert inner is not None
        torch.testing.assert_close(inner.apply(rows[4:], 0.7), whole[START + 4 :])
        assert (part.type, part.rank, part.tensor_names) == (delta.type, delta.rank, delta.tensor_names)
        factors = part.factors()
        if factors is not None:
            up, down, scale = factors
            torch.testing.assert_close(rows + 0.7 * scale * up @ down, whole[START : START + LENGTH])


@kinds
def test_a_delta_says_what_it_read(kind: str) -> None:
    """Each role of the group is in one of the deltas, but for marks that were read while it was built."""
    made = SAMPLES[kind].deltas(kind).values()
    read = {name for delta in made for name in delta.tensor_names}
    assert set(SAMPLES[kind].tensors()) - read <= {"on_input", "reshape_weight"}


SIZES = st.integers(0, 6)
SHAPE = st.lists(SIZES, max_size=5).map(tuple)


@kinds
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shapes_make_a_delta_that_works_or_one_clear_error(kind: str, data: st.DataObject) -> None:
    """Files of strangers: tensors of any shape, on modules of any shape. Near misses above all, so sizes are few."""
    sample = SAMPLES[kind]
    small = {role: tuple(data.draw(st.sampled_from([size, 2, 4])) for size in s) for role, s in sample.roles.items()}
    roles = {role: data.draw(st.one_of(st.just(shape), SHAPE), label=role) for role, shape in small.items()}
    weight = data.draw(st.one_of(st.just((OUT, IN)), st.just((4, 4)), SHAPE), label="weight")
    parameters = {"weight": weight, "bias": weight[:1], "modulation": weight}
    tensors = {**{role: torch.zeros(shape) for role, shape in roles.items()}, **sample.values}
    try:
        made = deltas(kind, tensors, parameters, alpha=3.0)
    except ShapeMismatchError:
        return
    for parameter, delta in made.items():
        shape = delta.shape_after(parameters[parameter])
        assert delta.apply(torch.ones(shape), 0.5).shape == shape


@pytest.mark.parametrize("kind", ["oft2", "diag-oft"])
def test_a_rotation_of_nothing_is_nothing(kind: str) -> None:
    """Found by a random shape: a file and a module without a single number."""
    tensors = {role: torch.zeros([0] * len(shape)) for role, shape in SAMPLES[kind].roles.items()}
    try:
        made = deltas(kind, {**tensors, **SAMPLES[kind].values}, {"weight": (0, 0)}, alpha=3.0)
    except ShapeMismatchError:
        return

    assert made["weight"].apply(torch.ones(0, 0), 0.5).shape == (0, 0)
