"""Which file a name from a graph means."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.errors import AmbiguousNameError, ConfigError, CorruptFileError, LoomError, UnknownNameError
from lora_core.names import resolve_name

FILES = (
    "ink.safetensors",
    "styles/ink_v1.5.safetensors",
    "styles/rain.safetensors",
    "people/rain.safetensors",
    "people/old.pt",
    "windows\\snow.safetensors",
)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ink.safetensors", "ink.safetensors"),
        ("styles/rain.safetensors", "styles/rain.safetensors"),
        ("styles\\rain.safetensors", "styles/rain.safetensors"),
        ("windows/snow.safetensors", "windows\\snow.safetensors"),
        ("./styles//rain.safetensors", "styles/rain.safetensors"),
        ("styles/rain", "styles/rain.safetensors"),
        ("styles/ink_v1.5", "styles/ink_v1.5.safetensors"),
        ("ink_v1.5", "styles/ink_v1.5.safetensors"),
        ("snow", "windows\\snow.safetensors"),
        ("moved/here/old.pt", "people/old.pt"),
        ("old.safetensors", "people/old.pt"),  # converted since
        ("  ink ", "ink.safetensors"),
    ],
)
def test_exact_then_without_extension_then_by_base_name(name: str, file: str):
    assert resolve_name(name, FILES) == file


def test_an_exact_name_wins_over_a_shorter_way_to_write_another():
    assert resolve_name("ink", ("ink", "ink.safetensors")) == "ink"
    assert resolve_name("a/ink", ("ink.safetensors", "a/ink.safetensors")) == "a/ink.safetensors"


@pytest.mark.parametrize("name", ["rain", "rain.safetensors", "elsewhere/rain.safetensors"])
def test_a_base_name_of_two_files_is_an_error_that_lists_them(name: str):
    with pytest.raises(AmbiguousNameError) as caught:
        resolve_name(name, FILES)

    assert caught.value.candidates == ("people/rain.safetensors", "styles/rain.safetensors")


def test_two_files_that_differ_in_the_extension_are_ambiguous_without_it():
    with pytest.raises(AmbiguousNameError, match="fits 2 files"):
        resolve_name("a", ("a.safetensors", "a.pt"))


HASHES = {"ink.safetensors": "aaaaaaaaaaaa", "people/rain.safetensors": "bbbbbbbbbbbb", "styles/rain.safetensors": None}


def hash_of(name: str) -> str | None:
    if name not in HASHES:
        raise CorruptFileError(name, "damaged")
    return HASHES[name]


def test_a_renamed_file_is_found_by_its_hash():
    assert resolve_name("gone.safetensors", FILES, hash="AAAAAAAAAAAA", hash_of=hash_of) == "ink.safetensors"
    assert resolve_name("gone.safetensors", FILES, hash="aaaaaaaaaaaa" + "0" * 52, hash_of=hash_of) == "ink.safetensors"


def test_the_hash_decides_between_files_of_one_base_name():
    assert resolve_name("rain", FILES, hash="bbbbbbbbbbbb", hash_of=hash_of) == "people/rain.safetensors"


def test_a_name_that_fits_never_asks_for_hashes():
    def fail(name: str) -> str:
        raise AssertionError(name)

    assert resolve_name("ink", FILES, hash="bbbbbbbbbbbb", hash_of=fail) == "ink.safetensors"


@pytest.mark.parametrize("name", ["", "  "])
def test_a_hash_alone_is_enough(name: str):
    assert resolve_name(name, FILES, hash="aaaaaaaaaaaa", hash_of=hash_of) == "ink.safetensors"


def test_a_hash_alone_that_no_file_has():
    with pytest.raises(UnknownNameError, match=r"no LoRA named 'hash cccccccccccc': .* No file has this hash"):
        resolve_name("", FILES, hash="cccccccccccc", hash_of=hash_of)


@pytest.mark.parametrize("useless", [None, "", "aaa", "xyzxyzxyzxyz", "e3b0c44298fc"])
def test_a_hash_that_says_nothing_finds_nothing(useless: str | None):
    with pytest.raises(UnknownNameError):
        resolve_name("gone", FILES, hash=useless, hash_of=lambda name: "e3b0c44298fc")


def test_of_thousands_of_names_few_are_compared_letter_by_letter(monkeypatch: pytest.MonkeyPatch):
    compared: list[int] = []

    def counted(name: str, known: Sequence[str], **options: float) -> list[str]:
        compared.append(len(known))
        return get_close_matches(name, known, **options)

    monkeypatch.setattr("lora_core.errors.get_close_matches", counted)
    names = [f"{word}/{word}_{number:04}.safetensors" for word in ("ink", "rain", "stone") for number in range(500)]
    with pytest.raises(UnknownNameError, match=r"did you mean 'rain/rain_0123.safetensors'"):
        resolve_name("rain/rain_O123.safetensors", names)
    assert max(compared) <= 50


def test_a_missing_name_names_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        resolve_name("styles/rian.safetensors", FILES)
    assert caught.value.nearest == "styles/rain.safetensors"

    with pytest.raises(UnknownNameError, match=r"Did you mean 'a/very/long/folder/of/styles/ink_wash\.safetensors'"):
        resolve_name("inkwash", ("a/very/long/folder/of/styles/ink_wash.safetensors",))
    with pytest.raises(UnknownNameError, match="there is none"):
        resolve_name("ink", ())


@pytest.mark.parametrize(
    "name",
    ["../ink.safetensors", "styles/../../x", "..\\x", "/etc/passwd", "C:\\loras\\ink", "c:ink", "\\\\host\\x", "~/x"],
)
def test_paths_out_of_the_folder_are_refused(name: str):
    with pytest.raises(ConfigError, match="is a path, expected a name inside the loras folder"):
        resolve_name(name, (*FILES, name))


@pytest.mark.parametrize("name", ["~y.safetensors", "~y", "~old/ink.safetensors"])
def test_a_name_may_begin_with_a_tilde(name: str):
    files = ("~y.safetensors", "~old/ink.safetensors", "~backup/~y.pt")

    assert resolve_name(name, files) in files[:2]


def test_an_empty_name_is_refused():
    with pytest.raises(ConfigError, match="no name is given"):
        resolve_name(" ", FILES)


@given(st.text(), st.lists(st.text(min_size=1), max_size=4), st.text())
def test_any_name_is_found_or_refused(name: str, available: list[str], hash: str):
    found = None
    try:
        found = resolve_name(name, available, hash, lambda path: "0123456789ab")
    except LoomError as error:
        assert str(error)  # noqa: PT017
    assert found is None or found in available
