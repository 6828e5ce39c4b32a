"""Settings from files and dictionaries: paths, overrides, and the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_core.errors import ConfigError
from lora_core.train.config import TrainConfig, dump_config, load_config, override, parse_config

SMALL = {"model": {"base": "some/hub-id"}, "data": {"folder": "pictures"}}


def test_a_base_and_pictures_are_enough():
    config = parse_config(SMALL)

    assert (config.network.type, config.network.rank, config.optimizer.name) == ("lora", 16, "adamw")
    assert config.data.resolution == (512, 512)


def test_what_is_written_is_read_as_the_same(tmp_path: Path):
    values = SMALL | {
        "network": {"block_ranks": {"down.0": 4, "mid": 0}, "targets": ["to_q", "to_k"], "alpha": 8},
        "samples": {"prompts": ['a "cat"', "ünïcode\n"], "width": 64},
        "optimizer": {"options": {"decouple": True, "d_coef": 0.5, "mode": "x", "n": 3}},
        "output": {"folder": str(tmp_path / "out")},
    }
    (tmp_path / "run.toml").write_text(dump_config(parse_config(values)), "utf-8")

    again = load_config(tmp_path / "run.toml")

    assert again == parse_config(values | {"data": {"folder": str(tmp_path / "pictures")}})
    assert again.network.targets == ("to_q", "to_k")
    assert again.text_encoder.rank is None


def write(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text, "utf-8")
    return file


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "base").mkdir()
    file = write(
        tmp_path,
        'model.base = "base"\nmodel.vae = "hub/vae"\ndata.folder = "./pictures"\ndata.prior.folder = "../class"\n'
        'validation.folder = "/elsewhere"\n',
    )
    monkeypatch.chdir("/")

    config = load_config(file)

    assert config.model.base == str(tmp_path / "base")
    assert config.model.vae == "hub/vae", "nothing is there, so it is a hub id"
    assert config.data.folder == str(tmp_path / "pictures")
    assert config.data.prior.folder == str(tmp_path.parent / "class")
    assert config.validation.folder == "/elsewhere"
    assert config.output.folder == str(tmp_path / "loras"), "the default too: the same command finds its state again"
    assert config.data.cache == "", "what is not given stays so"


def test_without_a_file_paths_start_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    config = load_config(None, ["model.base=a/b", "data.folder=p", "validation.folder=~/v"])

    assert (config.model.base, config.data.folder) == ("a/b", str(tmp_path / "p"))
    assert config.validation.folder == str(Path.home() / "v")
    assert config.output.folder == str(tmp_path / "loras")


def test_overrides_are_toml_or_words(tmp_path: Path):
    file = write(tmp_path, 'model.base = "a/b"\ndata.folder = "p"\nnetwork.block_ranks = { mid = 4 }\n')

    config = load_config(
        file,
        [
            "network.rank=8",
            "network.targets = ['to_q']",
            "data.folder=here",
            "optimizer.learning_rate=2e-4",
            "data.trigger=a = b",
            'network.block_ranks."down.0"=2',
            "samples.prompts=['a', 'b']",
            "output.title=2024-01-01",
            "run.checkpointing=true",
        ],
    )

    assert config.network.rank == 8
    assert config.network.targets == ("to_q",)
    assert config.data.folder == str(Path.cwd() / "here"), "as any path on a command line, from the current folder"
    assert config.optimizer.learning_rate == 2e-4
    assert config.data.trigger == "a = b"
    assert config.network.block_ranks == {"mid": 4, "down.0": 2}
    assert config.samples.prompts == ("a", "b")
    assert config.output.title == "2024-01-01", "a date is text here"
    assert config.run.checkpointing is True


def test_overrides_leave_what_they_change_as_it_was():
    values = {"network": {"rank": 4}}

    assert override(values, ["network.rank=8"]) == {"network": {"rank": 8}}
    assert values == {"network": {"rank": 4}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("network.rnak=3", "network.rnak: no such setting; did you mean network.rank?"),
        ("network.rank", "'network.rank': expected key=value, such as network.rank=8"),
        ("=3", "'=3': expected key=value, such as network.rank=8"),
        ("network=3", "network: is a table; set one of its keys, such as network.type"),
        ("network.rank.x=3", "network.rank.x: no such setting"),
    ],
)
def test_a_wrong_override_says_so(text: str, fault: str):
    with pytest.raises(ConfigError, match=r"^--set: ") as caught:
        override({}, ["run.steps=3", text])
    assert caught.value.faults[0].startswith(fault)


@pytest.mark.parametrize(("text", "fault"), [(b"[network\n", "line 1, column 9"), (b"a = '\xff'\n", "byte 5")])
def test_a_file_that_is_no_toml_says_where(tmp_path: Path, text: bytes, fault: str):
    (tmp_path / "run.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"run\.toml: not TOML") as caught:
        load_config(tmp_path / "run.toml")
    assert fault in caught.value.message


def test_settings_do_not_change():
    config = parse_config(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        config.network.rank = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(config, TrainConfig)
