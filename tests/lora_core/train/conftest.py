"""Tiny pipelines as fixtures: folders in diffusers' layout, written once a session. ``tiny`` has what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import small_runs
import tiny
from lora_core.train.diffusers_denoiser import DiffusersDenoiser


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


@pytest.fixture(scope="session")
def _loaded_demo() -> DiffusersDenoiser:
    loaded = small_runs.load()
    loaded.encode_text(["a word"])  # transformers hooks its own layers at the first call
    return loaded


@pytest.fixture
def demo(_loaded_demo: DiffusersDenoiser) -> Iterator[DiffusersDenoiser]:
    """The demo's base, loaded once a session: each test, however its run ends, leaves it as it came."""
    before = small_runs.traces(_loaded_demo)
    yield _loaded_demo
    after = small_runs.traces(_loaded_demo)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    assert not changed, f"the run left traces in {changed[:3]}"
