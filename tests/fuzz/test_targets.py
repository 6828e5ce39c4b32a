"""The targets on good inputs, on seeded bad ones, and on what hypothesis thinks of. Longer: ``nox -s fuzz``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import mutate
import seeds
import targets

from lora_core.errors import CorruptFileError, LoomError
from lora_core.formats.suffixes import ROLES, SUFFIXES

SEEDS = seeds.seeds()
INPUTS = 300  # of each target, about a second each


@pytest.mark.parametrize("target", targets.TARGETS)
def test_good_inputs_are_taken(target: str) -> None:
    if target != "options":  # whose inputs name files that are not there
        for data in SEEDS[target]:
            targets.TARGETS[target](data)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_mutated_inputs_are_taken_or_refused_in_one_line(target: str) -> None:
    inputs = SEEDS[target]
    for number in range(INPUTS):
        targets.run(target, mutate.mutated(inputs[number % len(inputs)], number, inputs))


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_files_with_sound_headers_and_other_content(first: int) -> None:
    for number in range(first, first + 50):
        targets.run("file", mutate.rebuilt(number))


def test_a_run_lets_only_our_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: Exception) -> None:
        def target(data: bytes) -> None:
            raise error

        monkeypatch.setitem(targets.TARGETS, "header", target)

    refuse(CorruptFileError("a", "b"))
    targets.run("header", b"")
    refuse(FileNotFoundError("a"))
    targets.run("header", b"")
    refuse(KeyError("a"))
    with pytest.raises(KeyError):
        targets.run("header", b"")
    error = LoomError("a")
    error.message = "two\nlines"
    refuse(error)
    with pytest.raises(ValueError, match="no one line"):
        targets.run("header", b"")


# Names of real files in parts, so that what is made of them gets far.
parts = st.sampled_from(
    ["lora_unet", "lora_te1", "unet", "transformer", "diffusion_model", "base_model.model", "text_encoder",
     "double_blocks", "down_blocks", "attn1", "to_q", "to_k", "0", "1", "38", "processor", "qkv", "default", "weight",
     "bias", "", "²",
     "unet:0", "up", "down", *sorted(ROLES), *sorted(SUFFIXES)]
)  # fmt: skip
keys = st.tuples(st.lists(parts, min_size=1, max_size=8), st.sampled_from("._")).map(lambda two: two[1].join(two[0]))
shapes = st.lists(st.sampled_from([0, 1, 2, 4, 16, 320, 768, 3072, 9216]), max_size=5).map(tuple)


@settings(max_examples=300)
@given(st.dictionaries(keys | st.text(), shapes, max_size=12))
def test_any_names_and_shapes(tensors: dict[str, tuple[int, ...]]) -> None:
    lines = "\n".join(f"{key} {','.join(map(str, shape))}" for key, shape in tensors.items())
    targets.run("names", lines.encode("utf-8", "replace"))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["r", "lora_alpha", "alpha", "alpha_pattern", "rank_pattern", "use_rslora", "unet.lora_alpha",
                         "unet.alpha_pattern", "unet.r", "peft_type", "text_encoder", "target_modules"]),
        json_values, max_size=6,
    )
)  # fmt: skip
def test_any_settings(table: dict[str, object]) -> None:
    import json

    targets.run("settings", json.dumps(table).encode())


@pytest.mark.parametrize("target", ["blocks", "prompt", "rows", "options", "metadata"])
@settings(max_examples=60)
@given(text=st.text())
@example(text="<lora:" * 50_000)
@example(text="in1" + "1" * 50_000 + " " * 50_000 + "x=1")
@example(text="(" * 100_000 + "," * 100_000)
def test_any_text(target: str, text: str) -> None:
    targets.run(target, text.encode("utf-8", "replace"))
