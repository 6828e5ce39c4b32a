"""Settings from a TOML file or nested dictionaries, checked as a whole; and back to TOML.

Relative paths in a file start at the file's own folder, so that a run goes on from wherever it is called; those
given with ``--set`` start, as in any command, at the current folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ...errors import ConfigError, UnknownNameError
from .checks import cross_checks
from .faults import faults_of, unknown
from .keys import sections, settings
from .presets import preset_values
from .toml import read_toml
from .train_config import TrainConfig
from .unused import unused

Table = dict[str, Any]

FOLDERS = ("data.folder", "data.cache", "data.prior.folder", "validation.folder", "output.folder", "output.runs")
FILES = ("network.continue_from",)
# Hub ids look like paths: these are paths only where something is there.
PERHAPS_PATHS = ("model.base", "model.vae", "model.pipeline")


def load_config(path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """A TOML file with ``overrides`` (``network.rank=8``) over its values; without a file, those alone.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not TOML, or settings that cannot work; all faults at once.
    """
    if path is None:
        values, folder, where = {}, Path.cwd(), "--set"
    else:
        values, folder, where = _read(Path(path)), Path(path).parent, str(path)
    _start_paths_at(values, folder)
    return parse_config(override(values, overrides, Path.cwd()), where)


def parse_config(values: Mapping[str, Any], where: str = "settings") -> TrainConfig:
    """Nested dictionaries as TOML has them, over those of their preset; ``where`` they are from begins an error.

    Raises:
        ConfigError: all faults at once, each with its key.
    """
    preset, faults = _preset(values.get("preset", ""))
    values = _over(preset, values)
    # Left out, these two would be one fault each and hide those of their keys.
    whole: Table = {"model": {}, "data": {}, **values}
    if not _has_pictures(whole["data"]):
        faults.append("data.folder: is missing; give the folder with the pictures")
    try:
        # As JSON, a list may be a tuple while "8" is no number and true is not 1.
        config = TrainConfig.model_validate_json(json.dumps(whole, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(where, [*faults, *faults_of(error)]) from None
    if faults := [*faults, *cross_checks(config), *unused(config, preset)]:
        raise ConfigError(where, faults)
    return config


def dump_config(config: TrainConfig) -> str:
    """All settings as TOML that ``parse_config`` makes equal ones of; those that are left out stay so."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def override(values: Mapping[str, Any], overrides: Sequence[str], folder: Path | None = None) -> Table:
    """``values`` with each ``key=value`` put in; a value is TOML, and text where it is not.

    Relative paths among them start at ``folder``; without one they stay as they are.

    Raises:
        ConfigError: no ``=``, or no such key.
    """
    result = _copy(values)
    faults: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = _parts(key.strip())
        if not equals or not parts:
            faults.append(f"{text!r}: expected key=value, such as network.rank=8")
            continue
        if fault := _misnamed(parts):
            faults.append(fault)
            continue
        table = result
        for part in parts[:-1]:
            inner = table.get(part)
            table[part] = inner if isinstance(inner, dict) else {}
            table = table[part]
        new = _value(value.strip())
        table[parts[-1]] = new if folder is None else _started(".".join(parts), new, folder)
    if faults:
        raise ConfigError("--set", faults)
    return result


def _preset(name: object) -> tuple[Table, list[str]]:
    """Values of a preset, and what is wrong with its name; a name of another type is pydantic's to say."""
    if not isinstance(name, str) or not name.strip():
        return {}, []
    try:
        return preset_values(name.strip()), []
    except UnknownNameError as error:
        return {}, [f"preset: {error.message}"]


def _over(preset: Table, values: Mapping[str, Any]) -> Table:
    """The user's values over those of a preset, section by section."""
    result = dict(preset)
    for key, value in values.items():
        below = preset.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        result[key] = {**cast(Table, below), **cast(Mapping[str, Any], value)} if both else value
    return result


def _has_pictures(data: object) -> bool:
    return not isinstance(data, dict) or bool(str(cast(Table, data).get("folder", "")).strip())


def _read(path: Path) -> Table:
    try:
        return read_toml(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"not TOML: byte {error.start} is not UTF-8"]) from None
    except ValueError as error:
        raise ConfigError(str(path), [f"not TOML: {error}"]) from None


def _start_paths_at(values: Table, folder: Path) -> None:
    """Relative paths become absolute, also that of the default output folder."""
    values.setdefault("output", {})
    if isinstance(values["output"], dict):
        cast(Table, values["output"]).setdefault("folder", settings()["output.folder"].default)
    for name in (*FOLDERS, *FILES, *PERHAPS_PATHS):
        *tables, key = name.split(".")
        table: Any = values
        for part in tables:
            table = cast(Table, table).get(part) if isinstance(table, dict) else None
        if isinstance(table, dict) and key in table:
            cast(Table, table)[key] = _started(name, cast(Table, table)[key], folder)


def _started(name: str, value: Any, folder: Path) -> Any:
    """A value as it is, or made absolute where it is a relative path."""
    if name not in (*FOLDERS, *FILES, *PERHAPS_PATHS) or not isinstance(value, str) or not value.strip():
        return value
    place = Path(os.path.abspath(folder / Path(value.strip()).expanduser()))
    return str(place) if name not in PERHAPS_PATHS or place.exists() else value


def _parts(key: str) -> list[str]:
    """``network.block_ranks."down.0"`` -> its three parts, as TOML reads a key; empty if it is none."""
    try:
        table: Any = read_toml(f"{key} = 0") if "=" not in key and "\n" not in key else {}
    except ValueError:
        return []
    parts: list[str] = []
    while isinstance(table, dict) and table:
        name, table = next(iter(cast(Table, table).items()))
        parts.append(name)
    return parts


def _misnamed(parts: Sequence[str]) -> str:
    """The fault of a key that is no setting and is not inside of one."""
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    known = settings()
    if any(name in known and (name == names[-1] or known[name].kind.startswith("table")) for name in names):
        return ""
    if names[-1] in sections():
        return (
            f"{names[-1]}: is a table; set one of its keys, such as {next(k for k in known if k.startswith(names[-1]))}"
        )
    return unknown(names[-1])


def _value(text: str) -> Any:
    try:
        read = read_toml(f"value = {text}")
    except ValueError:
        return text
    usable = len(read) == 1 and type(read["value"]) in (bool, int, float, str, list, dict)
    return read["value"] if usable else text


def _copy(values: Mapping[str, Any]) -> Table:
    return {
        key: _copy(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }
