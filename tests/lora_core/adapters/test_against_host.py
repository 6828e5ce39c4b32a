"""Our numbers against the host's own: ``comfy.lora.load_lora`` and ``calculate_weight`` on the same tensors.

The host runs once, in its own process, on all cases. Both sides start from a float32 weight. Tolerances are
``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): the host adds LoRA after LoRA and we add one product,
so sums are taken in another order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltas import Random, deltas, patch_of
from host_harness.environment import HostEnvironment
from lora_core.adapters import Delta
from lora_core.patching import apply_patch
from lora_core.types import Shape, Slice

pytestmark = pytest.mark.host

Tensors = dict[str, torch.Tensor]
LOHA = ("w1_a", "w1_b", "w2_a", "w2_b")
SUFFIXES = {"up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight"}

HOST_SIDE = """
import json, sys
from safetensors.torch import load_file, save_file
from comfy.lora import calculate_weight, load_lora

folder = sys.argv[1]
tensors, results = load_file(folder + "/in.safetensors"), {}
for case, entries in json.load(open(folder + "/cases.json")).items():
    patches = []
    for number, (parameter, strength, offset) in enumerate(entries):
        prefix = f"{case}/{number}/"
        lora = {name[len(prefix):]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        values = load_lora(lora, {"x": "layer.weight"})
        patches.append((strength, values["layer." + parameter], 1.0, offset, None))
    try:
        results[case] = calculate_weight(patches, tensors[case].clone(), "layer.weight")
    except RuntimeError as error:
        print(case, error)
save_file(results, folder + "/out.safetensors")
"""


@dataclass(frozen=True)
class Entry:
    """One file of a stack: its tensors by role, and how it is applied."""

    kind: str
    roles: Tensors
    strength: float
    alpha: float | None = None
    parameter: str = "weight"
    slice: Slice | None = None

    def file(self) -> Tensors:
        """As kohya and LyCORIS write it, for a module named x."""
        named = {f"x.{SUFFIXES.get(role, role)}": tensor for role, tensor in self.roles.items()}
        return named if self.alpha is None else named | {"x.alpha": torch.tensor(self.alpha)}

    def delta(self, shape: Shape) -> Delta:
        inside = shape if self.slice is None else (self.slice.length, *shape[1:])
        return deltas(self.kind, self.roles, {"weight": inside, "bias": inside}, self.alpha)[self.parameter]


@dataclass(frozen=True)
class Case:
    weight: torch.Tensor
    entries: list[Entry] = field(default_factory=list[Entry])

    def ours(self) -> torch.Tensor:
        shape = tuple(self.weight.shape)
        parts = [(entry.delta(shape), entry.strength, entry.slice) for entry in self.entries]
        return apply_patch(self.weight, patch_of(self.weight, *parts))


def loha(random: Random, shape: Shape, rank: int = 4) -> Tensors:
    out, inner = shape[0], prod(shape[1:])
    sizes = {"w1_a": (out, rank), "w1_b": (rank, inner), "w2_a": (out, rank), "w2_b": (rank, inner)}
    return {f"hada_{name}": random.tensor(*size) for name, size in sizes.items()}


def other_types(random: Random) -> dict[str, Case]:
    """LoHa, LoKr, GLoRA, new values and more inputs, in each way of storing them that the host reads."""
    linear, conv = (12, 20), (12, 20, 3, 3)
    tucker = {f"hada_{name}": random.tensor(4, size) for name, size in zip(LOHA, (12, 20, 12, 20), strict=True)}
    cores = {"hada_t1": random.tensor(4, 4, 3, 3, size=0.3), "hada_t2": random.tensor(4, 4, 3, 3, size=0.3)}
    small = {"lokr_w1": random.tensor(3, 4)}
    small_factors = {"lokr_w1_a": random.tensor(3, 2), "lokr_w1_b": random.tensor(2, 4)}
    big_factors = {"lokr_w2_a": random.tensor(4, 2), "lokr_w2_b": random.tensor(2, 5)}
    sides = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
    glora = [random.tensor(*size) for size in ((20, 2), (2, 20), (12, 2), (2, 20))]
    glora_conv = [random.tensor(*size) for size in ((20, 2, 1, 1), (2, 20, 1, 1), (12, 2, 1, 1), (2, 20, 3, 3))]
    on_input = {"dora_scale": random.tensor(1, 20).abs() + 0.5}
    wide = {"up": random.tensor(12, 4), "down": random.tensor(4, 30), "reshape_weight": torch.tensor([12, 30])}

    def one(shape: Shape, kind: str, roles: Tensors, strength: float = 0.7, alpha: float | None = 2.0) -> Case:
        return Case(random.tensor(*shape), [Entry(kind, roles, strength, alpha)])

    return {
        "loha": one(linear, "loha", loha(random, linear)),
        "loha, negative strength": one(linear, "loha", loha(random, linear), -1.3, None),
        "loha, conv": one(conv, "loha", loha(random, conv)),
        "loha, tucker": one(conv, "loha", tucker | cores),
        "loha, dora on input": one(linear, "loha+dora", loha(random, linear) | on_input),
        "lokr": one(linear, "lokr", small | big_factors),
        "lokr, both whole, alpha ignored": one(linear, "lokr", small | {"lokr_w2": random.tensor(4, 5)}, 0.7, 100000.0),
        "lokr, both in factors": one(linear, "lokr", small_factors | big_factors, -0.4),
        "lokr, conv": one(conv, "lokr", small | {"lokr_w2": random.tensor(4, 5, 3, 3)}),
        "lokr, conv in factors": one(conv, "lokr", small | big_factors | {"lokr_w2_b": random.tensor(2, 45)}),
        "lokr, dora on input": one(linear, "lokr+dora", small | big_factors | on_input, 1.0),
        "glora": one(linear, "glora", dict(zip(sides, glora, strict=True))),
        "glora, first order": one(
            linear, "glora", dict(zip(sides, [glora[1], glora[0], glora[3], glora[2]], strict=True))
        ),
        "glora, conv": one(conv, "glora", dict(zip(sides, glora_conv, strict=True))),
        "new value": one((12,), "replacement", {"set_weight": random.tensor(12)}, 1.0, None),
        "more inputs": one(linear, "lora_wider", wide),
    }


def make_cases() -> dict[str, Case]:
    random = Random.seeded()
    linear, conv, pointwise = (12, 20), (12, 20, 3, 3), (12, 20, 1, 1)

    def factors(shape: Shape, rank: int = 4) -> Tensors:
        ones = [1] * (len(shape) - 2)
        down = random.tensor(rank, *shape[1:], size=0.3)
        return {"up": random.tensor(shape[0], rank, *ones, size=0.3), "down": down}

    def on_input(shape: Shape) -> Tensors:
        return factors(shape) | {"dora_scale": random.tensor(1, shape[1], *[1] * (len(shape) - 2)).abs() + 0.5}

    def on(shape: Shape, *entries: Entry) -> Case:
        return Case(random.tensor(*shape), list(entries))

    def lora(shape: Shape, strength: float = 0.7, alpha: float | None = 2.0) -> Entry:
        return Entry("lora", factors(shape), strength, alpha)

    tucker = {
        "up": random.tensor(12, 4, 1, 1),
        "down": random.tensor(4, 20, 1, 1),
        "mid": random.tensor(4, 4, 3, 3, size=0.3),
    }
    flat = {role: tensor.flatten(1) for role, tensor in factors(conv).items()}
    bias = Entry("bias", {"diff_b": random.tensor(12)}, 0.7, parameter="bias")
    norm = {"w_norm": random.tensor(12), "b_norm": random.tensor(12)}
    rows = Slice(0, 4, 6)
    return {
        **other_types(random),
        "linear": on(linear, lora(linear)),
        "no alpha": on(linear, lora(linear, alpha=None)),
        "negative strength": on(linear, lora(linear, strength=-1.3)),
        "conv": on(conv, lora(conv)),
        "conv, flat factors": on(conv, Entry("lora", flat, 0.7, 2.0)),
        "pointwise conv": on(pointwise, lora(pointwise)),
        "linear on pointwise conv": on(pointwise, Entry("lora", factors(linear), 0.7, 2.0)),
        "tucker": on(conv, Entry("lora", tucker, 0.7, 2.0)),
        "dora on input": on(linear, Entry("dora", on_input(linear), 1.0, 2.0)),
        "dora on input, strength": on(linear, Entry("dora", on_input(linear), 0.6, 2.0)),
        "dora on input, conv": on(conv, Entry("dora", on_input(conv), -0.5, 2.0)),
        "full": on(conv, Entry("full", {"diff": random.tensor(*conv)}, 0.7)),
        "bias": on((12,), bias),
        "norm weight": on((12,), Entry("norm", norm, 0.7)),
        "norm bias": on((12,), Entry("norm", norm, 0.7, parameter="bias")),
        "stack of three": on(linear, lora(linear, 0.8), lora(linear, -0.4), lora(linear, 1.5, None)),
        "dora inside a stack": on(linear, lora(linear), Entry("dora", on_input(linear), 0.6, 2.0), lora(linear, -0.5)),
        "rows of a fused matrix": on(linear, Entry("lora", factors((6, 20)), 0.7, 2.0, slice=rows), lora(linear, 0.5)),
    }


CASES = make_cases()


def dora_on_output() -> Case:
    random = Random.seeded(1)
    roles = {"up": random.tensor(12, 4, size=0.3), "down": random.tensor(4, 20, size=0.3)}
    return Case(
        random.tensor(12, 20), [Entry("dora", roles | {"dora_scale": random.tensor(12, 1).abs() + 0.5}, 0.6, 2.0)]
    )


def deviations() -> dict[str, Case]:
    """What the host reads otherwise, or not at all."""
    random = Random.seeded(2)
    conv = (12, 20, 3, 3)
    flat = loha(random, conv)
    shapes = dict(zip(LOHA, ((12, 4, 1, 1), (4, *conv[1:])) * 2, strict=True))
    stored = {role: tensor.reshape(shapes[role.removeprefix("hada_")]) for role, tensor in flat.items()}
    tucker = {"lokr_w2_a": random.tensor(2, 4), "lokr_w2_b": random.tensor(2, 5), "lokr_t2": random.tensor(2, 2, 3, 3)}
    return {
        "lokr, tucker": Case(
            random.tensor(*conv), [Entry("lokr", tucker | {"lokr_w1": random.tensor(3, 4)}, 0.7, 2.0)]
        ),
        "new value at half strength": Case(
            random.tensor(12), [Entry("replacement", {"set_weight": random.tensor(12)}, 0.5)]
        ),
        "loha with factors of four dimensions": Case(random.tensor(*conv), [Entry("loha", stored, 0.7, 2.0)]),
        "loha with the same factors flattened": Case(random.tensor(*conv), [Entry("loha", flat, 0.7, 2.0)]),
    }


@pytest.fixture(scope="module")
def host_results(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What the host makes of each case."""
    folder: Path = tmp_path_factory.mktemp("host")
    cases = CASES | {"dora on output": dora_on_output(), **deviations()}
    tensors: Tensors = {name: case.weight for name, case in cases.items()}
    for name, case in cases.items():
        for number, entry in enumerate(case.entries):
            tensors |= {f"{name}/{number}/{key}": tensor.clone() for key, tensor in entry.file().items()}
    save_file(tensors, folder / "in.safetensors")
    plan = {name: [(e.parameter, e.strength, e.slice) for e in case.entries] for name, case in cases.items()}
    (folder / "cases.json").write_text(json.dumps(plan))
    comfy_environment.run_code(HOST_SIDE, str(folder))
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_host(name: str, host_results: Tensors) -> None:
    case = CASES[name]
    assert case.ours().shape != case.weight.shape or (case.ours() - case.weight).abs().max() > 0.1
    torch.testing.assert_close(case.ours(), host_results[name])


def test_where_the_host_deviates_dora_on_output(host_results: Tensors) -> None:
    """The host divides V = W + dW by the norm of W, for magnitudes per output only.

    The paper, PEFT and LyCORIS, who write such files, divide by the norm of V, so that the result has the stored
    magnitude; so do we. (Per input the host uses the norm of V as well, and is equal to us above.)
    """
    case = dora_on_output()
    [entry] = case.entries
    weight, roles = case.weight, entry.roles
    moved = weight + (2.0 / 4) * roles["up"] @ roles["down"]

    def decomposed(norm: torch.Tensor) -> torch.Tensor:
        return weight + entry.strength * (roles["dora_scale"] * moved / norm - weight)

    host, ours = host_results["dora on output"], case.ours()
    torch.testing.assert_close(host, decomposed(weight.norm(dim=1, keepdim=True)))
    torch.testing.assert_close(ours, decomposed(moved.norm(dim=1, keepdim=True)))
    assert (host - ours).abs().max() > 0.01


def test_where_the_host_deviates_new_values(host_results: Tensors) -> None:
    """The host sets them at any strength, at 0 too. Ours are reached at 1."""
    case = deviations()["new value at half strength"]
    value = case.entries[0].roles["set_weight"]
    assert torch.equal(host_results["new value at half strength"], value)
    torch.testing.assert_close(case.ours(), (case.weight + value) / 2)


def test_where_the_host_deviates_loha_of_convolutions_in_four_dimensions(host_results: Tensors) -> None:
    """OneTrainer's: the host raises an error, as it multiplies matrices alone. It reads the same factors flattened."""
    made = deviations()
    stored, flat = made["loha with factors of four dimensions"], made["loha with the same factors flattened"]
    assert "loha with factors of four dimensions" not in host_results
    torch.testing.assert_close(flat.ours(), host_results["loha with the same factors flattened"])
    torch.testing.assert_close(stored.ours() - stored.weight, flat.ours() - flat.weight)


def test_where_the_host_deviates_lokr_in_tucker_form(host_results: Tensors) -> None:
    """The host logs an error about a view and leaves the weight. Ours is LyCORIS's (``test_against_lycoris``)."""
    case = deviations()["lokr, tucker"]
    assert torch.equal(host_results["lokr, tucker"], case.weight)
    assert (case.ours() - case.weight).abs().max() > 0.1
