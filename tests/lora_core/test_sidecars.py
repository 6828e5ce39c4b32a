"""Files beside a LoRA, as other programs write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lora_core.sidecars import Sidecar, read_sidecars


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return tmp_path / "ink v1.5.safetensors"


def write(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def test_nothing_beside_it(lora: Path):
    assert read_sidecars(lora) == Sidecar()


def test_a1111(lora: Path):
    write(
        lora.with_name("ink v1.5.json"),
        {
            "description": "Bold ink",
            "sd version": "SD1",
            "activation text": "ink style, bold",
            "preferred weight": 0.8,
            "negative text": "photo",
            "notes": "good with rain",
        },
    )

    read = read_sidecars(lora)

    assert read.trigger_words == ("ink style", "bold")
    assert (read.strength, read.description, read.base) == (0.8, "Bold ink", "SD1")
    assert (read.negative, read.user_notes) == ("photo", "good with rain")
    assert read.sources == ("ink v1.5.json",)


def test_a_preferred_weight_of_zero_is_none(lora: Path):
    write(lora.with_name("ink v1.5.json"), {"preferred weight": 0})

    assert read_sidecars(lora).strength is None


def test_lora_manager(lora: Path):
    write(
        lora.with_name("ink v1.5.metadata.json"),
        {
            "base_model": "SDXL 1.0",
            "sha256": "AB" * 32,
            "trainedWords": ["ink style"],
            "civitai": {"trainedWords": ["bold, Ink Style"], "description": "<p>Bold</p>"},
            "usage_tips": '{"strength": 0.7, "strength_min": 0.5, "strength_max": 1}',
        },
    )

    read = read_sidecars(lora)

    assert read.trigger_words == ("ink style", "bold")
    assert (read.strength, read.strength_min, read.strength_max) == (0.7, 0.5, 1.0)
    assert (read.base, read.sha256, read.description) == ("SDXL 1.0", "ab" * 32, "<p>Bold</p>")


def test_rgthree(lora: Path):
    write(
        lora.with_name("ink v1.5.safetensors.rgthree-info.json"),
        {
            "trainedWords": [{"word": "ink style", "civitai": True}, "bold"],
            "strengthMin": 0.4,
            "strengthMax": "0.9",
            "userNote": "mine",
        },
    )

    read = read_sidecars(lora)

    assert read.trigger_words == ("ink style", "bold")
    assert (read.strength_min, read.strength_max, read.user_notes) == (0.4, 0.9, "mine")


def test_civitai(lora: Path):
    write(
        lora.with_name("ink v1.5.civitai.info"),
        {"trainedWords": ["ink style"], "baseModel": "SD 1.5", "model": {"description": "Bold"}},
    )

    read = read_sidecars(lora)

    assert (read.trigger_words, read.base, read.description) == (("ink style",), "SD 1.5", "Bold")


def test_a_short_text_is_words_a_long_one_a_description(lora: Path):
    text = lora.with_name("ink v1.5.txt")
    write(text, "\ufeffink style, bold\nblack")
    assert read_sidecars(lora).trigger_words == ("ink style", "bold", "black")

    write(text, "This LoRA, made on paper, " * 30)
    assert read_sidecars(lora).trigger_words == ()
    assert read_sidecars(lora).description.startswith("This LoRA, made")


def test_the_users_own_words_come_first(lora: Path):
    write(lora.with_name("ink v1.5.civitai.info"), {"trainedWords": ["site"], "baseModel": "SD 1.5"})
    write(lora.with_name("ink v1.5.json"), {"activation text": "mine", "sd version": ""})
    write(lora.with_name("ink v1.5.txt"), "loose")

    read = read_sidecars(lora)

    assert read.trigger_words == ("mine", "site", "loose")
    assert read.base == "SD 1.5"
    assert read.sources == ("ink v1.5.json", "ink v1.5.civitai.info", "ink v1.5.txt")


def test_a_preview_is_found(lora: Path):
    lora.with_name("ink v1.5.preview.webp").touch()
    assert read_sidecars(lora).preview == lora.with_name("ink v1.5.preview.webp")

    lora.with_name("ink v1.5.jpg").touch()
    assert read_sidecars(lora).preview == lora.with_name("ink v1.5.jpg")


def test_a_preview_that_a_sidecar_names_is_looked_for_beside_the_file(lora: Path):
    lora.with_name("other.mp4").touch()
    sidecar = lora.with_name("ink v1.5.metadata.json")

    write(sidecar, {"preview_url": "D:\\loras\\other.mp4"})
    assert read_sidecars(lora).preview == lora.with_name("other.mp4")

    for name in ("/etc/passwd", "..", "", 5, "gone.png", "ink v1.5.metadata.json", "☂" * 300 + ".png"):
        write(sidecar, {"preview_url": name})
        assert read_sidecars(lora).preview is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{broken", "not JSON"),
        (b"[1, 2]", "a JSON list, expected an object"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"[" * 200_000, "not JSON"),
        (b" " * 1_000_001, "larger than 1000000 bytes, so it is not read"),
    ],
)
def test_a_broken_sidecar_is_noted_and_the_others_are_read(lora: Path, content: bytes, what: str):
    lora.with_name("ink v1.5.json").write_bytes(content)
    write(lora.with_name("ink v1.5.txt"), "ink style")

    read = read_sidecars(lora)

    assert read.trigger_words == ("ink style",)
    assert read.sources == ("ink v1.5.txt",)
    assert len(read.notes) == 1
    assert read.notes[0].startswith(f"ink v1.5.json beside the LoRA is left out: {what}")


def test_fields_of_other_kinds_are_no_fields(lora: Path):
    write(
        lora.with_name("ink v1.5.json"),
        {"activation text": ["x"], "preferred weight": "much", "description": {"a": 1}, "notes": None},
    )
    write(lora.with_name("ink v1.5.metadata.json"), {"trainedWords": "x", "civitai": 5, "usage_tips": "{oops"})

    read = read_sidecars(lora)

    assert (read.trigger_words, read.strength, read.description) == ((), None, "")
    assert read.notes[0].startswith("usage_tips in ink v1.5.metadata.json beside the LoRA is left out: not JSON")


def test_text_of_strangers_is_cleaned(lora: Path):
    write(
        lora.with_name("ink v1.5.json"),
        {"activation text": "ink\u0000 \u202estyle", "description": "\ud83d a\u001b[31m"},
    )

    read = read_sidecars(lora)

    assert read.trigger_words == ("ink style",)
    assert read.description == "a[31m"


def test_what_is_no_plain_file_is_left_alone(lora: Path):
    lora.with_name("ink v1.5.txt").mkdir()
    os.mkfifo(lora.with_name("ink v1.5.json"))  # reading it would wait for ever

    assert read_sidecars(lora) == Sidecar()


def test_a_name_too_long_for_its_sidecars(tmp_path: Path):
    """252 characters: file systems take 255, and `.rgthree-info.json` comes on top."""
    lora = tmp_path / f"{'x' * 240}.safetensors"
    write(lora.with_suffix(".txt"), "ink style")

    assert read_sidecars(lora).trigger_words == ("ink style",)
    assert read_sidecars(lora).notes == ()
