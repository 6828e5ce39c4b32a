"""The LoRAs that the pack carries: what their files say, and that the engine made them by the settings beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from demo.dataset import read_items
from demo.train_loras import HERE, NAMES, lora_file, settings
from lora_core.io import open_tensors
from lora_core.metadata import read_metadata
from lora_core.train.output.metadata import CONFIG_KEY, published


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def texts(name: str) -> dict[str, str]:
    with open_tensors(lora_file(name)) as source:
        return dict(source.metadata)


def changed(file: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that the file states otherwise; those that came to be since have their defaults."""
    return [
        name
        for name, value in file.items()
        if (changed(value, now[name]) if isinstance(value, dict) else value != now.get(name))
    ]


def test_the_file_was_made_by_the_settings_that_lie_beside_it(name: str) -> None:
    said = json.loads(texts(name)[CONFIG_KEY])

    # What is drawn and where it is written changes no weight.
    assert set(changed(said, published(settings(name)))) <= {"samples", "output", "validation"}


def test_the_file_says_all_that_a_user_wants_to_know(name: str) -> None:
    found, config = read_metadata(texts(name)), settings(name)

    assert found.title == config.output.title
    assert found.thumbnail.startswith("data:image/jpeg;base64,")
    assert texts(name)["ss_steps"] == texts(name)["ss_max_train_steps"] == str(config.run.steps)
    assert texts(name)["modelspec.architecture"] == "loom-demo/lora"


def test_the_file_names_no_place_of_the_machine_that_made_it(name: str) -> None:
    home = str(Path.home())
    for key, text in texts(name).items():
        assert home not in text, key
        assert str(HERE) not in text, key
        if key != "modelspec.thumbnail":
            assert not re.search(r'(^|["\s])(/|[A-Za-z]:\\)\w', text), key


def test_samples_are_of_pictures_that_there_are(name: str) -> None:
    captions = {item.text for item in read_items("flat")}

    assert settings(name).samples.prompts
    assert set(settings(name).samples.prompts) <= captions
