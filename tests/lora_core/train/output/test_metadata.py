"""What a trained file says of itself, as users' tools read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lora_core.architectures import ARCHITECTURES
from lora_core.inspect import inspect_file
from lora_core.metadata import read_metadata
from lora_core.train.config import TrainConfig
from lora_core.train.output import BaseFacts, PictureFolder, RunFacts, base_facts, metadata, save_lora
from lora_core.train.output.metadata import last_part
from lora_core.trigger_words import trigger_words

from .conftest import Train

BUCKETS = {"buckets": {"0": {"resolution": [48, 64], "count": 2}, "1": {"resolution": [64, 64], "count": 4}}}
FACTS = RunFacts(
    architecture="sd15",
    base=BaseFacts("base.safetensors", "ab" * 32, "0123abcd"),
    step=6,
    processes=2,
    epoch_size=12,
    folders={"10_sks cat": PictureFolder(6, 10), "1_cat": PictureFolder(4, 1, prior=True)},
    tag_frequency={"10_sks cat": {"sks cat": 6, "sofa": 2}, "1_cat": {"cat": 4}},
    bucket_info=BUCKETS,
    started=1_700_000_000.5,
    finished=1_700_000_600.25,
    loss=0.125,
    session=77,
)


def changed(config: TrainConfig, **sections: dict[str, object]) -> TrainConfig:
    values = config.model_dump()
    for name, settings in sections.items():
        values[name] |= settings
    return TrainConfig.model_validate(values)


def test_every_value_is_a_text(config: TrainConfig):
    assert all(isinstance(value, str) for value in metadata(config, FACTS).values())


def test_values_have_the_forms_that_kohyas_tools_parse(config: TrainConfig):
    known = metadata(
        changed(config, run={"batch": 2, "accumulate": 3, "steps": 20}, objective={"weighting": "min_snr"}), FACTS
    )

    assert known["ss_network_module"] == "networks.lora"
    assert known["ss_network_dim"] == "16"
    assert known["ss_network_alpha"] == "16.0"
    assert known["ss_base_model_version"] == "sd_v1"
    assert known["ss_v2"] == "False"
    assert known["ss_resolution"] == "(64, 48)"
    assert known["ss_clip_skip"] == "None"
    assert known["ss_min_snr_gamma"] == "5.0"
    assert known["ss_mixed_precision"] == "no"
    assert known["ss_text_encoder_lr"] == "None"
    assert known["ss_steps"] == "6"
    assert known["ss_max_train_steps"] == "20"
    assert known["ss_lr_warmup_steps"] == "2"  # of a hundred, as many as a tenth of the run
    # A step is 2 x 3 pictures on each of two processes, which is the epoch's twelve.
    assert (known["ss_epoch"], known["ss_num_epochs"], known["ss_num_batches_per_epoch"]) == ("6", "20", "3")
    assert known["ss_num_train_images"] == "60"
    assert known["ss_num_reg_images"] == "4"
    assert known["ss_training_started_at"] == "1700000000.5"
    assert known["ss_training_finished_at"] == "1700000600.25"
    assert known["ss_sd_model_name"] == "base.safetensors"
    assert known["ss_sd_model_hash"] == "0123abcd"
    assert known["ss_new_sd_model_hash"] == "ab" * 32
    assert "ss_vae_name" not in known
    assert json.loads(known["ss_tag_frequency"])["10_sks cat"] == {"sks cat": 6, "sofa": 2}
    assert json.loads(known["ss_dataset_dirs"]) == {"10_sks cat": {"n_repeats": 10, "img_count": 6}}
    assert json.loads(known["ss_reg_dataset_dirs"]) == {"1_cat": {"n_repeats": 1, "img_count": 4}}
    assert json.loads(known["ss_bucket_info"]) == BUCKETS
    assert (known["ss_min_bucket_reso"], known["ss_max_bucket_reso"]) == ("48", "64")
    (dataset,) = json.loads(known["ss_datasets"])
    assert [subset["image_dir"] for subset in dataset["subsets"]] == ["10_sks cat", "1_cat"]


def test_modelspec_is_complete(config: TrainConfig):
    wanted = {"title": "My cat", "author": "Ann", "description": "A cat.", "license": "CC0", "tags": ["cat", "pet"]}

    known = metadata(changed(config, output=wanted, model={"clip_skip": 1}), FACTS)

    assert known["modelspec.sai_model_spec"] == "1.0.1"
    assert known["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert known["modelspec.implementation"] == "diffusers"
    assert known["modelspec.title"] == "My cat"
    assert known["modelspec.author"] == "Ann"
    assert known["modelspec.description"] == "A cat."
    assert known["modelspec.license"] == "CC0"
    assert known["modelspec.tags"] == "cat, pet"
    assert known["modelspec.date"] == "2023-11-14T22:23:20+00:00"
    assert known["modelspec.trigger_phrase"] == "sks cat"
    assert known["modelspec.resolution"] == "64x48"
    assert known["modelspec.prediction_type"] == "epsilon"
    assert known["modelspec.encoder_layer"] == "2"


def test_placeholder_words_are_trigger_words(config: TrainConfig):
    known = metadata(changed(config, tokens={"names": ["<s1>", "<s2>"]}), FACTS)

    assert trigger_words(None, known) == ["sks cat", "<s1>", "<s2>"]


@pytest.mark.parametrize(
    ("type", "module", "arguments"),
    [
        ("lora", "networks.lora", {"conv_dim": 8, "conv_alpha": 4.0}),
        ("dora", "networks.lora", {"dora_wd": True, "conv_dim": 8, "conv_alpha": 4.0}),
        ("loha", "lycoris.kohya", {"algo": "loha", "conv_dim": 8, "conv_alpha": 4.0}),
    ],
)
def test_the_network_as_kohyas_arguments(config: TrainConfig, type: str, module: str, arguments: dict[str, object]):
    network = {"type": type, "conv_rank": 8, "conv_alpha": 4.0}

    known = metadata(changed(config, network=network), FACTS)

    assert known["ss_network_module"] == module
    assert json.loads(known["ss_network_args"]) == arguments


def test_sd2_that_predicts_v_has_kohyas_version_for_it(config: TrainConfig):
    facts = RunFacts("sd21", "v")

    assert metadata(config, facts)["ss_base_model_version"] == "sd_v2_v"
    assert metadata(config, facts)["ss_v2"] == "True"
    assert metadata(config, facts)["modelspec.prediction_type"] == "v"


def test_every_family_has_metadata(config: TrainConfig):
    for row in ARCHITECTURES:
        known = metadata(config, RunFacts(row.name, "flow"))
        assert known["modelspec.architecture"].endswith("/lora")
        assert known["ss_base_model_version"]
        assert "modelspec.prediction_type" not in known


def test_the_settings_are_there_and_no_folder_of_this_machine_is(config: TrainConfig):
    known = metadata(config, FACTS)

    settings = json.loads(known["loom.config"])
    assert settings["model"]["base"] == "base.safetensors"
    assert settings["data"]["folder"] == "cat"
    assert settings["optimizer"]["learning_rate"] == 1e-4
    assert TrainConfig.model_validate(settings).network == config.network
    assert not [key for key, value in known.items() if "/home/ann" in value or config.output.folder in value]


def test_a_repository_of_a_hub_keeps_its_name():
    assert last_part("runwayml/stable-diffusion-v1-5") == "runwayml/stable-diffusion-v1-5"
    assert last_part("models/base.safetensors") == "base.safetensors"
    assert last_part("../base/model") == "model"
    assert last_part("") == ""


def test_the_base_is_known_by_its_name_and_its_hashes(tmp_path: Path):
    file = tmp_path / "base.safetensors"
    file.write_bytes(bytes(range(256)) * 4096 + b"\x01" * 0x10000)  # a MiB, and 64 KiB behind it

    found = base_facts(str(file))

    # sha256sum of the file, and `tail -c 65536 base.safetensors | sha256sum | head -c 8`
    import hashlib

    assert found.name == "base.safetensors"
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.old_hash == hashlib.sha256(b"\x01" * 0x10000).hexdigest()[:8]
    assert base_facts(str(tmp_path)) == BaseFacts(tmp_path.name)
    assert base_facts("owner/name") == BaseFacts("owner/name")


def test_our_own_reader_shows_it(config: TrainConfig, train: Train, tmp_path: Path):
    facts = RunFacts(
        "loom_demo", "v", FACTS.base, step=6, epoch_size=12, folders=FACTS.folders,
        tag_frequency=FACTS.tag_frequency, thumbnail=Image.new("RGB", (64, 64), "red"),
    )  # fmt: skip
    config = changed(config, output={"title": "My cat", "comment": "first try"})

    path = save_lora(train().adapter, {}, tmp_path / "cat.safetensors", metadata=metadata(config, facts)).path

    shown = read_metadata(inspect_file(path)["metadata"])  # pyright: ignore[reportArgumentType]
    assert shown.notes == ()
    assert shown.title == "My cat"
    assert shown.base == "loom-demo"
    assert shown.base_file == "base.safetensors"
    assert shown.trigger_words == ("sks cat",)
    assert shown.comment == "first try"
    assert shown.dim == "16"
    assert shown.steps == "6"
    assert shown.prediction_type == "v"
    assert shown.thumbnail.startswith("data:image/jpeg;base64,")
    assert inspect_file(path)["architecture"] == "loom_demo"
    assert inspect_file(path)["hashes"]["autov3"] == shown.autov3  # pyright: ignore[reportIndexIssue]
