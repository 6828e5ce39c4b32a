"""A folder of small LoRAs, and a library of it that ends with the test."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import small_models
from lora_core.library import Library, Listing

TENSORS = small_models.lora_tensors(only="attn1_to_q", alpha=4)


class Shelf:
    """Folders of LoRAs, listed as the host lists them, and libraries of them."""

    def __init__(self, base: Path) -> None:
        self.folders = [base / "loras"]
        self.folders[0].mkdir()
        self.file = base / "user" / "library.sqlite"
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.busy = False
        self._open: list[Library] = []

    def put(self, name: str, title: str = "", folder: int = 0, **metadata: str) -> Path:
        path = self.folders[folder] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(TENSORS, path, {"modelspec.title": title or path.stem} | metadata)
        return path

    def names(self) -> list[str]:
        return sorted(
            {
                os.path.relpath(os.path.join(root, name), folder)
                for folder in self.folders
                for root, _, names in os.walk(folder)
                for name in names
                if name.endswith(".safetensors")
            }
        )

    def library(self, *, file: Path | None = None, hashing: bool = True) -> Library:
        made = Library(
            lambda: Listing(self.names(), [str(folder) for folder in self.folders]),
            file or self.file,
            lambda version, state: self.events.append((version, state)),
            lambda: not self.busy,
            hashing=hashing,
        )
        self._open.append(made)
        return made

    def close(self) -> None:
        for library in self._open:
            library.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.close()


def wait_for(what: Callable[[], object], patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def settle(library: Library) -> dict[str, dict[str, Any]]:
    """The entries by name, when nothing is left to be found out."""
    library.refresh(force=True)
    wait_for(lambda: not library.state()["busy"])
    return entries(library)


def entries(library: Library, since: int = 0) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(library.answer(since))["loras"]}
