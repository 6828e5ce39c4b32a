"""Tiny pipelines as fixtures: folders in diffusers' layout, written once a session. ``tiny`` has what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models have nothing to share out: on a busy machine threads that wait for each other take a hundred times
    as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_sd1(tmp_path_factory.mktemp("tiny") / "sd1")


@pytest.fixture(scope="session")
def tiny_sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_sd2(tmp_path_factory.mktemp("tiny") / "sd2")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture(scope="session")
def demo_base() -> Path:
    """The demo's base model, a trained one of a known family."""
    return Path(__file__).parents[3] / "demo" / "model"
