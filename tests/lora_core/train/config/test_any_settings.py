"""Whatever stands in a file or in --set, the answer is settings or a ConfigError of one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors import ConfigError
from lora_core.train.config import TrainConfig, dump_config, load_config, override, parse_config, settings
from lora_core.train.config.toml import read_toml

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.datetimes(),
    st.sampled_from(["lora", "attention+ff", "regex:(", "cpu", "min_snr", "kohya"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def tried(call: Callable[[], TrainConfig]) -> TrainConfig | ConfigError:
    try:
        return call()
    except ConfigError as error:
        return error


@given(st.dictionaries(st.sampled_from(list(settings())), values, max_size=6), st.text(max_size=6), values)
def test_values_of_any_kind(chosen: dict[str, Any], key: str, value: Any):
    tables: dict[str, Any] = {"model": {"base": "b"}, "data": {"folder": "p"}, key: value}
    for name, one in chosen.items():
        *path, last = name.split(".")
        table = tables
        for part in path:
            inner = table.get(part)
            table[part] = inner if isinstance(inner, dict) else {}
            table = table[part]
        table[last] = one
    found = tried(lambda: parse_config(tables))

    if isinstance(found, ConfigError):
        assert found.faults
        assert "\n" not in found.message
    else:
        assert parse_config(read_toml(dump_config(found))) == found
        assert math.isfinite(found.optimizer.learning_rate)


@given(
    st.text(max_size=30) | st.sampled_from(list(settings())).flatmap(lambda name: st.text().map(f"{name}={{}}".format))
)
def test_any_text_of_set(text: str):
    found = tried(lambda: parse_config(override({"model": {"base": "b"}, "data": {"folder": "p"}}, [text])))

    assert isinstance(found, TrainConfig) or "\n" not in found.message


@given(st.binary(max_size=60))
def test_any_bytes_of_a_file(tmp_path_factory: Any, text: bytes):
    file = Path(tmp_path_factory.getbasetemp()) / "any.toml"
    file.write_bytes(text)

    found = tried(lambda: load_config(file))

    assert isinstance(found, ConfigError), "no such text names a base and a folder"
    assert found.message.startswith(str(file))
