"""Which torch gets installed: a machine's own choice comes first, and no environment is made without it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from host_harness import torch_pin

HERE = str(next(sys_tags()))  # such as cp311-cp311-manylinux_2_36_x86_64


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with no torch and an empty folder of wheels, which pip is told of."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.delenv("LOOM_TORCH", raising=False)
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")  # pip's own way to ignore its configuration files

    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    return wheels


def test_a_machine_without_a_choice_gets_plain_torch(machine: Path) -> None:
    assert torch_pin.torch_requirement() == "torch"
    assert torch_pin.constraints_file().read_text() == ""


def test_the_newest_wheel_that_fits_this_python_is_taken(machine: Path) -> None:
    for version, python in (("2.9.0+cpu", HERE), ("2.11.0+cpu", HERE), ("2.12.0+cpu", "cp27-cp27m-any")):
        (machine / f"torch-{version}-{python}.whl").touch()
    (machine / "torchvision-0.99.0-py3-none-any.whl").touch()
    (machine / "torch-broken.whl").touch()
    assert torch_pin.torch_requirement() == "torch==2.11.0"
    assert torch_pin.constraints_file().read_text() == "torch==2.11.0\n"


def test_an_installed_torch_comes_before_wheels(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / f"torch-2.11.0-{HERE}.whl").touch()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.10.0+cu130")
    assert torch_pin.torch_requirement() == "torch==2.10.0"


@pytest.mark.parametrize(("said", "meant"), [("2.9.1", "torch==2.9.1"), ("torch>=2.8,<2.10", "torch>=2.8,<2.10")])
def test_loom_torch_comes_first(machine: Path, monkeypatch: pytest.MonkeyPatch, said: str, meant: str) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.10.0")
    monkeypatch.setenv("LOOM_TORCH", said)
    assert torch_pin.torch_requirement() == meant
