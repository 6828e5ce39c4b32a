"""Property: whatever the stack, the fused application is the deltas one after the other, in float64.

Tolerance: a fused product sums at most 3 * 4 terms in float32, deltas before a DoRA are carried through its division
by a norm that is at least about a tenth, and there are at most five steps: a few hundred float32 roundings
(1.2e-7 each, relative to numbers of size ten at most) stay below 2e-4. Real errors (a lost strength, a wrong order)
are of size one tenth.
"""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deltas import Random, delta_of, patch_of
from lora_core.adapters import Delta
from lora_core.patching import apply_patch
from lora_core.types import Shape, Slice

SHAPES: tuple[Shape, ...] = ((6, 5), (8, 3), (6, 4, 1, 1), (6, 4, 3, 3))
KINDS = ("lora", "lora", "lora", "dora", "dora on input", "full", "loha", "lokr", "glora", "ia3")
Part = tuple[str, int, float, Slice | None, int]


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Shape, list[Part]]:
    """A weight's shape and up to five parts: kind, rank, strength, slice of rows, seed."""
    shape = draw(st.sampled_from(SHAPES))
    rows = st.builds(Slice, st.just(0), st.integers(0, shape[0] - 2), st.just(2))
    part = st.tuples(
        st.sampled_from(KINDS),
        st.integers(1, 4),
        st.floats(-2, 2, allow_subnormal=False),
        st.none() | rows,
        st.integers(0, 9),
    )
    return shape, draw(st.lists(part, max_size=5))


def make(shape: Shape, part: Part) -> Delta:
    kind, rank, _, place, seed = part
    inside = shape if place is None else (place.length, *shape[1:])
    random = Random.seeded(seed)
    match kind:
        case "full":
            return random.full(inside)
        case "lora":
            return random.lora(inside, rank, alpha=seed / 2 or None)
        case "dora" | "dora on input":
            return random.dora(inside, rank, per_output=kind == "dora")
        case _:
            roles = {role: random.tensor(*size, size=0.3) for role, size in sizes(kind, inside, rank).items()}
            return delta_of(kind, roles, inside, alpha=seed / 2 or None)


def sizes(kind: str, weight: Shape, rank: int) -> dict[str, Shape]:
    """Roles of a type and their shapes."""
    out, into, *kernel = weight
    low = {"a": (out, rank), "b": (rank, into, *kernel)}
    match kind:
        case "loha":
            return {f"hada_w{number}_{side}": size for number in "12" for side, size in low.items()}
        case "lokr":
            return {"lokr_w1": (2, 1), "lokr_w2_a": (out // 2, rank), "lokr_w2_b": (rank, into, *kernel)}
        case "glora":
            inputs = {"a1.weight": (into, rank), "a2.weight": (rank, into)}
            return inputs | {"b1.weight": low["a"], "b2.weight": low["b"]}
        case _:
            return {"ia3_weight": (out,)}


@settings(max_examples=200, deadline=None)
@given(stacks())
def test_fused_is_one_after_the_other(stack: tuple[Shape, list[Part]]) -> None:
    shape, parts = stack
    weight = Random.seeded(99).tensor(*shape)
    made = [make(shape, part) for part in parts]
    expected = weight.double()
    for delta, (kind, _, strength, place, _) in zip(made, parts, strict=True):
        inside = expected if place is None else expected.narrow(*place)
        assume(inside.abs().max() < 10)
        if kind.startswith("dora"):  # a norm near zero would magnify any rounding
            assume(_smallest_norm(delta.direction.apply(inside, 1.0)) > 0.1)  # type: ignore[attr-defined]
        changed = delta.apply(inside, strength)
        expected = changed if place is None else expected.clone()
        if place is not None:
            expected.narrow(*place).copy_(changed)
    patch = patch_of(weight, *((delta, part[2], part[3]) for delta, part in zip(made, parts, strict=True)))
    result = apply_patch(weight, patch)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-4)
    assert torch.equal(apply_patch(weight, patch), result)


def _smallest_norm(moved: torch.Tensor) -> float:
    rows, columns = moved.flatten(1).norm(dim=1), moved.transpose(0, 1).flatten(1).norm(dim=1)
    return min(rows.min().item(), columns.min().item())
