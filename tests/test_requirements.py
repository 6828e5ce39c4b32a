"""requirements.txt, which ComfyUI's manager installs, against the extra `train` of pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

from lora_core.train.config.toml import read_toml

ROOT = Path(__file__).resolve().parent.parent


def listed() -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def test_bounds_are_those_of_the_extra() -> None:
    extras = read_toml((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    train = {requirement.name: requirement for requirement in map(Requirement, extras["train"])}
    assert {str(requirement) for requirement in listed()} <= {str(requirement) for requirement in train.values()}


def test_nothing_in_it_is_torch_or_is_built_for_one() -> None:
    """Such a package may replace a host's torch. Diffusers and TensorBoard are of no use in the graph."""
    names = {requirement.name for requirement in listed()}
    built = {"torch", "torchvision", "torchaudio", "torchao", "xformers", "triton", "bitsandbytes"}
    assert names
    assert not names & {*built, "diffusers", "tensorboard"}
