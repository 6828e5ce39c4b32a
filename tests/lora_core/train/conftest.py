"""Tiny pipelines as fixtures: folders in diffusers' layout, written once a session. ``tiny`` has what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny


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
