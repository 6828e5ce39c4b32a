"""Our numbers against the host's own: ``comfy.lora.load_lora`` and ``calculate_weight`` on the same tensors.

The host runs once, in its own process, on all cases. Both sides start from a float32 weight. Tolerances are
``assert_close``'s for float32 (1.3e-6 relative, 1e-5 absolute): the host adds LoRA after LoRA and we add one product,
so sums are taken in another order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
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
    results[case] = calculate_weight(patches, tensors[case].clone(), "layer.weight")
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


@pytest.fixture(scope="module")
def host_results(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What the host makes of each case."""
    folder: Path = tmp_path_factory.mktemp("host")
    cases = CASES | {"dora on output": dora_on_output()}
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
    assert (case.ours() - case.weight).abs().max() > 0.1
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
