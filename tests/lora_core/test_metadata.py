"""Headers of real kinds of files, and of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.metadata import read_metadata


def test_modelspec():
    read = read_metadata(
        {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "modelspec.title": "Ink",
            "modelspec.author": "someone",
            "modelspec.trigger_phrase": "ink style, (bold, black:1.2)",
            "modelspec.tags": "style, ink",
            "modelspec.thumbnail": "data:image/png;base64,AAAA",
            "ss_output_name": "ink-000010",
        }
    )

    assert (read.title, read.author, read.base) == ("Ink", "someone", "stable-diffusion-xl-v1-base")
    assert read.trigger_words == ("ink style", "(bold, black:1.2)")
    assert read.tags == ("style", "ink")
    assert read.thumbnail.startswith("data:image/png")
    assert read.notes == ()


def test_both_spellings_of_modelspec_and_both_endings():
    read = read_metadata({"model_spec.title": "Ink", "model_spec.architecture": "flux-1-dev-lora"})

    assert (read.title, read.base) == ("Ink", "flux-1-dev")


def test_kohya_without_modelspec():
    read = read_metadata(
        {
            "ss_output_name": "ink",
            "ss_base_model_version": "sd_v1",
            "ss_sd_model_name": "v1-5.safetensors",
            "ss_network_module": "lycoris.kohya",
            "ss_network_dim": "16",
            "ss_network_alpha": "8.0",
            "ss_network_args": '{"algo": "lokr", "conv_dim": 4}',
            "ss_clip_skip": "None",
            "sshs_model_hash": "150ef207aad0" + "2" * 52,
        }
    )

    assert (read.title, read.base, read.base_file) == ("ink", "sd_v1", "v1-5.safetensors")
    assert (read.module, read.dim, read.alpha, read.clip_skip) == ("lycoris.kohya", "16", "8.0", "")
    assert read.arguments == {"algo": "lokr", "conv_dim": "4"}
    assert read.autov3 == "150ef207aad0"


def test_the_hash_of_an_empty_body_is_no_hash():
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert read_metadata({"sshs_model_hash": digest}).autov3 == ""


def tags(frequency: object, **more: object) -> tuple[str, ...]:
    header = {"ss_tag_frequency": json.dumps(frequency)}
    return read_metadata(header | {name: json.dumps(value) for name, value in more.items()}).frequent_tags


def test_tags_that_stand_in_every_image_are_a_guess_at_the_trigger():
    found = tags(
        {"16_smf girl": {"smart falcon": 43, "hair bow": 43, "smile": 36}},
        ss_dataset_dirs={"16_smf girl": {"n_repeats": 16, "img_count": 43}},
    )

    assert found == ("smart falcon", "hair bow")


def test_at_most_three_tags_a_folder_and_each_once():
    everywhere = dict.fromkeys("abcde", 10)

    assert tags({"1_x": everywhere, "2_y": {"a": 7, "z": 7}}) == ("a", "b", "c", "z")


def test_without_a_common_tag_the_folder_gives_its_name():
    found = tags(
        {"16_smf girl": {"smile": 3}, "10_img": {"smile": 3}, "plain": {"smile": 3}},
        ss_dataset_dirs={name: {"img_count": 9} for name in ("16_smf girl", "10_img", "plain")},
    )

    assert found == ("smf girl",)


def test_the_number_of_images_in_newer_headers_and_regularisation_folders():
    found = tags(
        {"5_ink": {"ink style": 8, "tree": 5}, "1_style": {"style": 100}},
        ss_datasets=[{"subsets": [{"img_count": 8, "image_dir": "D:\\sets\\5_ink"}]}],
        ss_reg_dataset_dirs={"1_style": {"n_repeats": 1, "img_count": 100}},
    )

    assert found == ("ink style",)


def test_a_single_image_says_nothing_about_its_tags():
    assert tags({"9_ink": {"tree": 1, "sky": 1}}) == ("ink",)


def test_what_cannot_be_read_is_noted():
    read = read_metadata(
        {"ss_tag_frequency": "{broken", "ss_network_args": "[1]", "modelspec.thumbnail": "javascript:alert(1)"}
    )

    assert read.thumbnail == ""
    assert [note.split(":")[0] for note in read.notes] == [
        "ss_network_args in the header",
        "the thumbnail in the header is not a small picture, so it is not shown",
        "ss_tag_frequency in the header",
    ]


def test_text_of_strangers_is_cleaned_and_bounded():
    read = read_metadata(
        {
            "modelspec.title": "In\x00k\u202e \ud800gpj.exe\n",
            "modelspec.description": "x" * 10**6,
            "ss_output_name": "y",
        }
    )

    assert read.title == "Ink gpj.exe"
    assert len(read.description) == 20_000


def test_headers_of_real_files(keys: Path):
    samples = json.loads((keys / "metadata_samples.json").read_text("utf-8"))
    headers = [sample["metadata"] for sample in samples if "metadata" in sample]
    smart_falcon = next(header for header in headers if header.get("ss_output_name", "").startswith("smart_falcon"))

    assert all(read_metadata(header).notes == () for header in headers if "'" not in header.get("ss_network_args", ""))
    assert "smart falcon \\(umamusume\\)" in read_metadata(smart_falcon).frequent_tags
    assert read_metadata(smart_falcon).arguments["algo"] == "lokr"


@pytest.mark.parametrize("name", ["ss_tag_frequency", "ss_datasets", "ss_dataset_dirs", "ss_network_args"])
@given(value=st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_in_a_header_raises(name: str, value: str):
    read_metadata({"ss_tag_frequency": '{"1_a": {"b": 2}}', name: value, "modelspec.title": value})
