"""The file that ``loom train --init`` writes: what has to be given, and every other setting as a comment.

A comment has the value that holds without it, the preset's or the default, so that uncommenting changes nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .effective import scale_note
from .keys import Setting, sections, settings
from .loading import override, parse_config
from .presets import PRESETS, preset_values

WIDTH = 118
# Written out, because every run has its own.
OWN = ("model.base", "data.folder", "output.folder", "output.name")
# What has to be given, and what stands there while the rest is checked.
PLACES = {"model": {"base": "base"}, "data": {"folder": "pictures"}}


def starting_toml(preset: str, overrides: Sequence[str] = ()) -> str:
    """A commented TOML file of a preset; what ``overrides`` (``key=value``) say stands in it uncommented.

    Raises:
        UnknownNameError: no such preset.
        ConfigError: a wrong override.
    """
    preset_values(preset)  # an unknown name is an error of its own, before those of values
    given = override({}, [f'preset="{preset}"', *overrides])
    config = parse_config(
        {**given, **{table: {**PLACES[table], **given.get(table, {})} for table in PLACES}}, where=f"preset {preset}"
    )
    values = config.model_dump(mode="json")
    for table, places in PLACES.items():  # left empty, they are faults that say what belongs there
        values[table] |= dict.fromkeys(places, "") | given.get(table, {})
    title = PRESETS[preset].title
    lines = [
        *_comment(
            f"{title[0].upper()}{title[1:]}. Start it, and go on after an interrupt, with `loom train THIS_FILE`."
        ),
        *_comment("Relative paths start at this file's folder. What is commented out holds as it stands here."),
        f"preset = {_toml(preset)}",
    ]
    for table in sections():
        lines += ["", f"[{table}]"]
        if table == "network" and (note := scale_note(config.network, config.optimizer)):
            lines += _comment(f"{note[0].upper()}{note[1:]}.")
        for setting in settings().values():
            if setting.section == table:
                lines += _line(setting, _get(values, setting.name), _get(given, setting.name) is not None)
    return "\n".join([*lines, ""])


def _line(setting: Setting, value: Any, given: bool) -> Iterator[str]:
    says = "" if setting.name == "preset" else setting.description
    if setting.choices and setting.kind not in says:
        says = f"{says}: {setting.kind}" if says else setting.kind
    if given or setting.name in OWN:
        text = f"{setting.key} = {_toml(value)}"
    elif value is None:
        text = f"# {setting.key} has no value"
    else:
        text = f"# {setting.key} = {_toml(value)}"
    whole = f"{text}  # {says}" if says else text
    if len(whole) <= WIDTH:
        yield whole
    else:
        yield from _comment(says)
        yield text


def _comment(text: str) -> list[str]:
    # Two marks, so that a line of words is never taken for a setting.
    return [f"## {line}" for line in textwrap.wrap(text, WIDTH - 3)]


def _get(values: Mapping[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found  # pyright: ignore[reportUnknownVariableType]


def _toml(value: Any) -> str:
    """A value on one line."""
    import tomli_w

    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(part) for part in value)}]"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(str(key))} = {_toml(part)}' for key, part in value.items())}}}"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")
