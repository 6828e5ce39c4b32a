"""Files of `nodes/` without a host: in a package of another name, as the host loads them, with its folders stood in."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PACK = "pack_x_y"


class Folders(ModuleType):
    """Of the host's ``folder_paths``, what the pack uses: one folder per kind."""

    def __init__(self, base: Path) -> None:
        super().__init__("folder_paths")
        self.base = base
        for kind in ("loras", "checkpoints", "diffusion_models", "vae"):
            (base / kind).mkdir()

        for folder in ("input", "output"):
            (base / folder).mkdir()

    def get_input_directory(self) -> str:
        return str(self.base / "input")

    def get_output_directory(self) -> str:
        return str(self.base / "output")

    def get_folder_paths(self, kind: str) -> list[str]:
        return [str(self.base / kind)]

    def get_filename_list(self, kind: str) -> list[str]:
        folder = self.base / kind
        # As the host's: links that lead nowhere are in the list.
        return sorted(
            os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder) for name in names
        )

    def get_full_path(self, kind: str, name: str) -> str | None:
        path = self.base / kind / name
        return str(path) if path.is_file() else None

    def get_save_image_path(self, prefix: str, folder: str) -> tuple[str, str, int, str, str]:
        """The host makes the folder, and counts; nothing is there in these tests."""
        subfolder, name = os.path.split(prefix)
        where = os.path.join(folder, subfolder)
        os.makedirs(where, exist_ok=True)
        return where, name, 1, subfolder, prefix


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    found = Folders(tmp_path)
    monkeypatch.setitem(sys.modules, "folder_paths", found)
    return found


@pytest.fixture
def files(folders: Folders) -> Iterator[ModuleType]:
    """``nodes/_files.py``; the pack's own `__init__` files would import the host."""
    root = Path(__file__).resolve().parents[2]
    for name, folder in ((PACK, root), (f"{PACK}.nodes", root / "nodes")):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(folder)]
    yield importlib.import_module(f"{PACK}.nodes._files")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACK]:
        del sys.modules[name]
