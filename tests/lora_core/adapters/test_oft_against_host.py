"""Diag-OFT and BOFT against the host's own: equal at strength 1, and where the host is something else, what it is.

The host runs once, in its own process. Tolerances are ``assert_close``'s for float32 (1.3e-6 relative, 1e-5
absolute): the host inverts where we solve.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltas import Random, delta_of
from host_harness.environment import HostEnvironment

pytestmark = pytest.mark.host

Tensors = dict[str, torch.Tensor]

HOST_SIDE = """
import json, sys
from safetensors.torch import load_file, save_file
from comfy.lora import calculate_weight, load_lora

folder = sys.argv[1]
tensors, results = load_file(folder + "/in.safetensors"), {}
for case, strength in json.load(open(folder + "/cases.json")).items():
    lora = {name[len(case) + 1:]: tensor for name, tensor in tensors.items() if name.startswith(case + "/")}
    weight = lora.pop("weight")
    patch = load_lora(lora, {"x": "layer.weight"})["layer.weight"]
    results[case] = calculate_weight([(strength, patch, 1.0, None, None)], weight, "layer.weight")
save_file(results, folder + "/out.safetensors")
"""


class Case(NamedTuple):
    weight: torch.Tensor
    roles: Tensors
    alpha: float
    strength: float

    def file(self) -> Tensors:
        return {f"x.{role}": tensor for role, tensor in self.roles.items()} | {"x.alpha": torch.tensor(self.alpha)}

    def ours(self, strength: float | None = None, **roles: torch.Tensor | None) -> torch.Tensor:
        """Our result, at another strength or with other tensors where they are given."""
        changed = {role: tensor for role, tensor in {**self.roles, **roles}.items() if tensor is not None}
        delta = delta_of("diag-oft", changed, tuple(self.weight.shape), self.alpha)
        return delta.apply(self.weight, self.strength if strength is None else strength)


def case(
    blocks: tuple[int, ...], *, strength: float = 1.0, alpha: float = 0.0, conv: bool = False, **options: bool
) -> Case:
    random = Random.seeded()
    roles = {"oft_blocks": random.tensor(*blocks, size=0.3)}
    if options.get("rescaled"):
        roles["rescale"] = random.tensor(24, 1).abs() + 0.5
    return Case(random.tensor(24, 20, 3, 3) if conv else random.tensor(24, 20), roles, alpha, strength)


DIAG, BUTTERFLY = (6, 4, 4), (3, 4, 6, 6)
EQUAL = {
    "diag-oft": case(DIAG),
    "diag-oft, conv": case(DIAG, conv=True),
    "boft": case(BUTTERFLY),
    "boft, conv": case(BUTTERFLY, conv=True),
    "boft, rescaled": case(BUTTERFLY, rescaled=True),
}
OTHER = {
    "fraction": case(DIAG, strength=0.6),
    "rescaled": case(DIAG, rescaled=True),
    "constraint": case(DIAG, alpha=0.05),
    "boft, fraction": case(BUTTERFLY, strength=0.6),
}


@pytest.fixture(scope="module")
def host_results(comfy_environment: HostEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What the host makes of each case."""
    folder = tmp_path_factory.mktemp("host")
    tensors: Tensors = {}
    for name, made in (EQUAL | OTHER).items():
        tensors |= {f"{name}/{key}": tensor.clone() for key, tensor in made.file().items()}
        tensors[f"{name}/weight"] = made.weight.clone()
    save_file(tensors, folder / "in.safetensors")
    strengths = {name: made.strength for name, made in (EQUAL | OTHER).items()}
    (folder / "cases.json").write_text(json.dumps(strengths))
    comfy_environment.run_code(HOST_SIDE, str(folder))
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("name", EQUAL)
def test_equal_to_the_host(name: str, host_results: Tensors) -> None:
    made = EQUAL[name]
    assert (made.ours() - made.weight).abs().max() > 0.1
    torch.testing.assert_close(made.ours(), host_results[name])


def test_the_host_squares_the_strength(host_results: Tensors) -> None:
    """It goes into the rotation and once more into the difference, so that 0.6 acts like 0.36. LyCORIS, who writes
    these files, has it once; so do we."""
    made = OTHER["fraction"]
    torch.testing.assert_close(host_results["fraction"], made.ours(0.36))
    assert (host_results["fraction"] - made.ours()).abs().max() > 0.1


def test_the_host_leaves_rescale_out_of_diag_oft(host_results: Tensors) -> None:
    made = OTHER["rescaled"]
    torch.testing.assert_close(host_results["rescaled"], made.ours(rescale=None))
    assert (host_results["rescaled"] - made.ours()).abs().max() > 0.1


def test_the_host_takes_the_constraint_for_all_outputs_together(host_results: Tensors) -> None:
    """LyCORIS's limit is alpha for each of the 24 outputs."""
    made = OTHER["constraint"]
    torch.testing.assert_close(host_results["constraint"], made._replace(alpha=0.05 / 24).ours())
    assert (host_results["constraint"] - made.ours()).abs().max() > 0.1


def test_the_host_brings_each_stage_of_boft_nearer_to_the_identity_and_then_the_whole(host_results: Tensors) -> None:
    """As LyCORIS's multiplier does, times the strength. We go straight from the base to the merged weight."""
    made = OTHER["boft, fraction"]
    stages = made.roles["oft_blocks"]
    whole = made.weight
    for stage in range(3):
        still = torch.zeros_like(stages)
        still[stage] = stages[stage]
        turned = delta_of("boft", {"oft_blocks": still}, (24, 20))
        whole = turned.apply(whole, 0.6)
    torch.testing.assert_close(host_results["boft, fraction"], made.weight + 0.6 * (whole - made.weight))
    assert (host_results["boft, fraction"] - made.ours()).abs().max() > 0.1
