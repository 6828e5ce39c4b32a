"""Conversions on disk: whole files or none, metadata that stays true, and the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import lora_files
from lora_core import load_adapter
from lora_core.cli import main
from lora_core.convert import convert_lora
from lora_core.errors import ConfigError, NonFiniteError, OutputExistsError
from lora_core.io import file_hashes

TRAINED = {
    "ss_network_dim": "4",
    "ss_tag_frequency": json.dumps({"10_ink": {"ink": 10}}),
    "modelspec.sai_model_spec": "1.0.0",
    "modelspec.architecture": "loom-demo/lora",
    "modelspec.hash_sha256": "0x" + "1" * 64,
    "sshs_model_hash": "2" * 64,
    "sshs_legacy_hash": "12345678",
}


@pytest.fixture
def ink(tmp_path: Path) -> Path:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules=lora_files.ATTENTION), 2.0)
    tensors["bundle_emb.ink man.clip_l"] = torch.ones(2, 64)
    return lora_files.save(tmp_path / "ink.safetensors", tensors, **TRAINED)


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def body(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def test_metadata_is_kept_and_its_hashes_are_those_of_the_new_file(ink: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    convert_lora(ink, new, "diffusers", dtype="fp32")

    said = header(new)
    kept = ("ss_network_dim", "ss_tag_frequency", "modelspec.sai_model_spec", "modelspec.architecture")
    assert {key: said[key] for key in kept} == {key: TRAINED[key] for key in kept}
    assert said["modelspec.hash_sha256"] == f"0x{body(new)}"
    assert said["sshs_model_hash"] == body(new)
    assert "sshs_legacy_hash" not in said  # of bytes that lie elsewhere now
    recipe = json.loads(said["loom.recipe"])
    assert recipe["method"] == "convert"
    assert recipe["lora"] == {
        "name": "ink.safetensors", "sha256": file_hashes(ink).sha256, "autov3": file_hashes(ink).autov3,
    }  # fmt: skip


def test_a_file_without_hashes_gets_none(tmp_path: Path) -> None:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules="proj_in$"))
    plain = lora_files.save(tmp_path / "plain.safetensors", tensors)
    convert_lora(plain, tmp_path / "new.safetensors", "kohya")

    assert set(header(tmp_path / "new.safetensors")) == {"loom.recipe"}


def test_a_file_with_nan_is_refused_as_everywhere(tmp_path: Path) -> None:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules="proj_in$"))
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key][0, 0] = torch.nan
    diverged = lora_files.save(tmp_path / "diverged.safetensors", tensors)

    with pytest.raises(NonFiniteError, match=rf"diverged\.safetensors: .*{key}"):
        convert_lora(diverged, tmp_path / "new.safetensors", "kohya")
    assert [path.name for path in tmp_path.iterdir()] == ["diverged.safetensors"]


def test_a_folder_that_is_there_is_named(ink: Path, tmp_path: Path) -> None:
    convert_lora(ink, tmp_path / "new", "peft")
    with pytest.raises(OutputExistsError, match=r"new/adapter_model\.safetensors"):
        convert_lora(ink, tmp_path / "new", "peft")


def test_numbers_that_fp16_does_not_hold_are_no_infinities(tmp_path: Path) -> None:
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules="proj_in$"))
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key] = tensors[key].float()
    tensors[key][0, 0] = 70_000.0
    large = lora_files.save(tmp_path / "large.safetensors", tensors)

    with pytest.raises(ConfigError, match=rf"large\.safetensors: {key} has numbers beyond 65504, .* bf16 or fp32"):
        convert_lora(large, tmp_path / "new.safetensors", "kohya", dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["large.safetensors"]
    convert_lora(large, tmp_path / "new.safetensors", "kohya", dtype="bf16")


def test_embeddings_go_where_a_format_has_them_and_are_named_where_not(ink: Path, tmp_path: Path) -> None:
    kept = convert_lora(ink, tmp_path / "kohya.safetensors", "kohya")
    lost = convert_lora(ink, tmp_path / "diffusers.safetensors", "diffusers")

    assert dict(kept.left_out) == {}
    assert list(load_adapter(kept.files[0]).embeddings) == ["ink man"]
    assert dict(lost.left_out) == {"bundle_emb.ink man.clip_l": "the format diffusers has no embeddings"}


def test_tensors_of_no_module_are_left_out_and_named(ink: Path, tmp_path: Path) -> None:
    tensors = lora_files.read(ink) | {"lora_unet_nowhere.lora_down.weight": torch.ones(4, 8)}
    odd = lora_files.save(tmp_path / "odd.safetensors", tensors)
    report = convert_lora(odd, tmp_path / "new.safetensors", "comfy")

    assert "lora_unet_nowhere.lora_down.weight" in report.left_out


def test_what_is_there_is_not_replaced_unless_told(ink: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    convert_lora(ink, new, "kohya")
    before = new.read_bytes()
    with pytest.raises(OutputExistsError):
        convert_lora(ink, new, "comfy")
    assert new.read_bytes() == before
    convert_lora(ink, new, "comfy", overwrite=True)
    assert load_adapter(new).report.format == "comfy"
    # The source itself: its tensors are read while the new file is written beside it.
    convert_lora(ink, ink, "comfy", overwrite=True)
    assert load_adapter(ink).report.format == "comfy"


def test_a_stopped_conversion_leaves_nothing(ink: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    for name, format in (("new.safetensors", "kohya"), ("folder", "peft")):
        with pytest.raises(KeyboardInterrupt):
            convert_lora(ink, tmp_path / name, format, progress=stop)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_peft_folder_is_a_folder_for_each_component(ink: Path, tmp_path: Path) -> None:
    both = lora_files.save(
        tmp_path / "both.safetensors", lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules="to_q$|q_proj"))
    )
    one = convert_lora(ink, tmp_path / "one", "peft")
    two = convert_lora(both, tmp_path / "two", "peft")

    def names(files: tuple[Path, ...]) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in files]

    assert names(one.files) == ["one/adapter_model.safetensors"]
    assert names(two.files) == ["two/unet/adapter_model.safetensors", "two/text_encoder/adapter_model.safetensors"]
    assert {delta.scale for _, delta in load_adapter(tmp_path / "one").deltas} == {0.5}
    with pytest.raises(OutputExistsError):
        convert_lora(ink, tmp_path / "one", "peft")
    convert_lora(ink, tmp_path / "one", "peft", dtype="fp32", overwrite=True)
    assert load_adapter(tmp_path / "one").deltas[0][1].tensors[0].dtype == "F32"


def test_names_have_to_suit_the_format(ink: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the format peft is a folder"):
        convert_lora(ink, tmp_path / "new.safetensors", "peft")
    with pytest.raises(ConfigError, match=r"the format kohya is a file: give a name that ends in \.safetensors"):
        convert_lora(ink, tmp_path / "new", "kohya")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_command_prints_what_the_new_file_is(ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run("convert", ink, "-o", tmp_path / "new.safetensors", "--format", "comfy", "--dtype", "fp32", "--json")

    (document,) = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (document["file"], document["format"]) == ("new.safetensors", "comfy")
    made: dict[str, Any] = document["converted"]
    assert (made["source"], made["source_format"], made["dtype"]) == ("ink.safetensors", "kohya", "fp32")
    assert made["modules"] == {"renamed": sum(document["adapter_types"].values())}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--format", "xlabs"], 2, "no format to write named 'xlabs'"),
        (["--dtype", "fp8"], 2, "no dtype named 'fp8'"),
        (["--format", "peft"], 2, "without .safetensors"),
    ],
)
def test_wrong_usage_is_one_line(
    ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert run("convert", ink, "-o", tmp_path / "new.safetensors", *arguments) == status

    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new.safetensors").exists()


def test_a_table_says_what_was_left_out(ink: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", ink, "-o", tmp_path / "new.safetensors", "--format", "diffusers") == 0

    printed = " ".join(capsys.readouterr().out.split())
    assert "left out" in printed
    assert "ink man" in printed
