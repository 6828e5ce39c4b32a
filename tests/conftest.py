"""Fixtures for all tests. The host is started only when a test asks for it, once per session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from host_harness import models, reduced_models
from host_harness.environment import HostEnvironment, prepare
from host_harness.host import ComfyHost

ROOT = Path(__file__).resolve().parent.parent

# No test asserts a time, not even that of one example of a property: a loaded machine is no fault.
# Each run has the same examples: a rare one that fails belongs to whoever looks for it (`nox -s fuzz`).
settings.register_profile("loom", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loom")


# The tables of fifty families live as long as the session; looking through them again and again takes a fifth of it.
gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`host` and `browser` follow from the fixtures; `gpu` is the one mark that a machine may lack the means for."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"comfy", "comfy_environment"} & fixtures:
            item.add_marker(pytest.mark.host)
        if "chromium" in fixtures:
            item.add_marker(pytest.mark.browser)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which a test of the library alone does without
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files go to a process, and all files with a running host to one, so that there is one host a session."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "host" if file in with_host else file

    with_host = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.parent.name == "browser" or "ComfyHost" in path.read_text("utf-8")
    }
    return ByFile(config, log)


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
def sd15_reduced() -> Path:
    return reduced_models.sd15_reduced()


@pytest.fixture(scope="session")
def sdxl_reduced() -> Path:
    return reduced_models.sdxl_reduced()


@pytest.fixture(scope="session")
def flux_reduced() -> reduced_models.FlowModel:
    return reduced_models.flux_reduced()


@pytest.fixture(scope="session")
def sd3_reduced() -> reduced_models.FlowModel:
    return reduced_models.sd3_reduced()


@pytest.fixture(scope="session")
def comfy_environment() -> HostEnvironment:
    return prepare()


@pytest.fixture(scope="session")
def comfy(comfy_environment: HostEnvironment, repository: Path) -> Iterator[ComfyHost]:
    with ComfyHost(comfy_environment, repository=repository) as host:
        yield host
