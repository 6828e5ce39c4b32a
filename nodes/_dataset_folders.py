"""Folders of pictures as a graph names them: the demo's, and those of the host's input folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import folder_paths

from ..lora_core.errors import ConfigError, UnknownNameError
from ._files import PACK
from ._settings_table import table

NO_FOLDER = "(none)"
# Name -> the demo's configuration whose pictures it is.
DEMOS = {
    "Loom Demo: High-Contrast emoji (built in)": "style.toml",
    "Loom Demo: flat food emoji (built in)": "content.toml",
}
_CONFIGS = PACK / "demo" / "configs"

# Folder -> when it was changed, and the names that were found in them then.
_listed: tuple[Mapping[str, int], list[str]] = {}, []


def folder_names() -> list[str]:
    """What can be chosen as pictures to learn from, after ``NO_FOLDER``: the demo's, then ``picture_folders``."""
    return [NO_FOLDER, *(name for name, file in DEMOS.items() if (_CONFIGS / file).is_file()), *picture_folders()]


def picture_folders() -> list[str]:
    """Folders inside the host's input folder that hold pictures, in them or below, with ``/`` between their parts.

    Looked through again when one of them changed: the host asks for this list several times a run.
    """
    global _listed
    top = folder_paths.get_input_directory()
    if not _listed[0] or top not in _listed[0] or any(_changed(path) != when for path, when in _listed[0].items()):
        _listed = _look(top)
    return list(_listed[1])


def _look(top: str) -> tuple[Mapping[str, int], list[str]]:
    """By the engine's rules (``lora_core.train.data.folder``), by names alone."""
    endings, mask = table().picture_endings, table().mask_ending
    seen: dict[str, int] = {}
    real: set[str] = set()
    found: set[PurePosixPath] = set()
    for folder, below, files in os.walk(top, followlinks=True):
        seen[folder] = _changed(folder)
        is_run = folder.endswith(".run") and "loss.csv" in files
        if is_run or os.path.realpath(folder) in real:  # a link to where we have been
            below.clear()
            continue
        real.add(os.path.realpath(folder))
        below[:] = sorted(name for name in below if not name.startswith("."))
        pictures = (name for name in map(str.lower, files) if name.endswith(endings) and not name.startswith("."))
        if any(not name.endswith(mask) for name in pictures):
            name = PurePosixPath(Path(folder).relative_to(top).as_posix())
            found |= {name, *name.parents} - {PurePosixPath(".")}
    return seen, sorted(map(str, found))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def folder_path(name: str, setting: str) -> Path:
    """The folder that a name means, inside the host's input folder.

    Args:
        setting: the input, for errors.

    Raises:
        ConfigError: the name leaves the input folder.
        UnknownNameError: there is no such folder; it names the nearest one.
    """
    top = Path(folder_paths.get_input_directory())
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        raise ConfigError(setting, [f"{name!r} leaves the input folder, expected the name of a folder inside it"])
    if not name.strip() or path == PurePosixPath(".") or not (top / path).is_dir():
        raise UnknownNameError("folder of pictures", name, picture_folders(), "Put it into the host's input folder.")
    return top / path


def demo_tables(name: str) -> dict[str, Any]:
    """``[data]`` and ``[validation]`` of the demo's own configuration, with whole paths.

    Raises:
        UnknownNameError: the pack was installed without its demo.
    """
    from ..lora_core.train.config.toml import read_toml

    file = _CONFIGS / DEMOS[name]
    if not file.is_file():
        raise UnknownNameError("folder of pictures", name, folder_names(), "The pack's folder demo is missing.")
    read = read_toml(file.read_text("utf-8"))
    tables = {section: read.get(section, {}) for section in ("data", "validation")}
    for place in (tables["data"], tables["data"].get("prior", {}), tables["validation"]):
        if "folder" in place:
            place["folder"] = str((file.parent / place["folder"]).resolve())
    return tables


def state_of(names: list[str]) -> str:
    """Changes with the files in these folders: their names, times and sizes. Names that mean no folder count as such.

    The demo's pictures are those of the pack and stay as they are.
    """
    lines: list[str] = []
    for name in names:
        lines.append(name)
        if name == NO_FOLDER or name in DEMOS:
            continue
        try:
            top = folder_path(name, "folder")
        except (ConfigError, UnknownNameError) as error:
            lines.append(error.message)
            continue
        for folder, below, files in os.walk(top):
            below.sort()
            lines += (_state(os.path.join(folder, file)) for file in sorted(files))
    return "\n".join(lines)


def _state(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:  # a link that leads nowhere, or a file that was deleted just now
        return path
    return f"{path}:{found.st_mtime_ns}:{found.st_size}"
