"""Fixtures for all tests. The host is started only when a test asks for it, once per session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from host_harness import models
from host_harness.environment import HostEnvironment, prepare
from host_harness.host import ComfyHost

ROOT = Path(__file__).resolve().parent.parent

# No test asserts a time, not even that of one example of a property: a loaded machine is no fault.
settings.register_profile("loom", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loom")


# The tables of fifty families live as long as the session; looking through them again and again takes a fifth of it.
gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`host` follows from the fixtures; `gpu` is the one mark that a machine may lack the means for."""
    for item in items:
        if {"comfy", "comfy_environment"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.host)
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            # The tests with a host share one, so one process runs them all; the others go by file.
            item.add_marker(pytest.mark.xdist_group("host" if item.get_closest_marker("host") else str(item.path)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def keys() -> Path:
    """The folder of key inventories: facts about real files that are not part of this repository."""
    folder = Path(os.environ.get("LOOM_KEYS") or ROOT.parent / "shared" / "keys")
    if not folder.is_dir():
        pytest.skip(f"no key inventories at {folder}; LOOM_KEYS names their folder")
    return folder


@pytest.fixture(scope="session")
def sd15_checkpoint(keys: Path) -> Path:
    return models.sd15_checkpoint(keys)


@pytest.fixture(scope="session")
def comfy_environment() -> HostEnvironment:
    return prepare()


@pytest.fixture(scope="session")
def comfy(comfy_environment: HostEnvironment, repository: Path) -> Iterator[ComfyHost]:
    with ComfyHost(comfy_environment, repository=repository) as host:
        yield host
