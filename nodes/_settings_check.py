"""Faults in what LoRA Train Settings is given, as far as they can be seen without a model and without pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..lora_core.errors import ConfigError
from ._settings_rows import elsewhere, rows
from ._settings_table import table
from ._settings_values import in_inputs, put
from ._train_types import Table

WHERE = "LoRA Train Settings"
# What stands for the model and the pictures. Whatever the computation's number type, this one of weights suits it.
_PLACES: dict[str, Any] = {"model": {"base": "base", "dtype": "fp32"}, "data": {"folder": "pictures"}}


def check(preset: str, values: Mapping[str, Table]) -> None:
    """Check settings over their preset; for ``auto-...``, what is a fault over that of every family.

    Raises:
        ConfigError: all faults at once, by the names of the inputs.
    """
    purpose = preset.removeprefix("auto")
    presets = [preset] if purpose == preset else [name for name in table().presets if name.endswith(purpose)]
    first, *others = ([*_faults({"preset": name, **_with_places(values)})] for name in presets)
    faults = [fault for fault in first if all(fault in other for other in others)]
    if values.get("output", {}).get("format") == "peft":
        faults.append("output.format: peft is a folder, which the list of LoRAs does not show; choose another")
    if faults:
        raise ConfigError(WHERE, [in_inputs(fault, rows()) for fault in faults])


def _with_places(values: Mapping[str, Table]) -> dict[str, Any]:
    return {name: {**_PLACES.get(name, {}), **values.get(name, {})} for name in {**_PLACES, **values}}


def _faults(whole: Mapping[str, Any]) -> Iterator[str]:
    """Those that concern the inputs here: what LoRA Train and the pictures set is not known yet."""
    from ..lora_core.train.config import parse_config

    own = {row.name for row in rows().values()} | {row.section for row in rows().values()}
    try:
        parse_config(whole)
    except ConfigError as error:
        yield from (fault for fault in error.faults if fault.partition(":")[0] in own)


def more_values(text: str) -> dict[str, Any]:
    """Nested tables of the input ``more``: TOML, or lines of ``key = value`` whose values may be bare words.

    Raises:
        ConfigError: lines that are neither, and settings that do not exist or are another node's.
    """
    from ..lora_core.train.config import override
    from ..lora_core.train.config.toml import read_toml

    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        try:
            given = read_toml(text)
        except ValueError:
            given = override({}, lines)
        found = dict(_leaves(given))
        override({}, [f"{name}=0" for name in found if name not in table().rows])  # raises where there is no such
    except ConfigError as error:
        raise ConfigError("more", error.faults) from None
    if faults := [f"{name}: {why}; leave it out" for name in found if (why := elsewhere(name))]:
        raise ConfigError("more", faults)
    result: dict[str, Any] = {}
    for name, value in found.items():
        put(result, name, value)
    return result


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> value; a setting that is a table itself is one value."""
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, Mapping) and name not in table().rows:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def over(values: Mapping[str, Table], more: Mapping[str, Table]) -> dict[str, dict[str, Any]]:
    """``more`` over ``values``, key by key."""
    return {section: {**values.get(section, {}), **more.get(section, {})} for section in {**values, **more}}
