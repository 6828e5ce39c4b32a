"""`loom inspect` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import small_models
from command_line import Loom, one_line


def test_inspect_for_people(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora)
    assert status == 0
    assert err == ""
    assert "ink.safetensors" in out
    assert "388 of 388" in out
    assert "4 (129 modules)" in out
    assert "[bold]ink[/bold]" in out  # text of a file is shown as it is, not as markup
    assert "ink (clip_l 1)" in out


def test_inspect_says_why_tensors_are_left_over(loom: Loom, tmp_path: Path) -> None:
    tensors = small_models.lora_tensors(only="attn1")
    tensors |= {f"lora_unet_other_{number}.alpha": torch.tensor(1.0) for number in range(3)}
    save_file(tensors, tmp_path / "part.safetensors")
    status, out, _ = loom("inspect", tmp_path / "part.safetensors")
    assert status == 0
    assert "unmatched" in out
    assert "1 x Loom Demo has no module lora_unet_other_0 (such as lora_unet_other_0.alpha)" in out


def test_inspect_as_json_is_one_document(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora, lora, "--json", "--modules")
    assert (status, err) == (0, "")
    documents = json.loads(out)
    assert [document["file"] for document in documents] == ["ink.safetensors"] * 2
    assert documents[0]["tensors"]["used"] == 388
    assert documents[0]["hashes"]["autov3"]
    assert len(documents[0]["modules"]) == 129


def test_a_bad_file_does_not_hide_the_others(loom: Loom, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"<html></html>")
    status, out, err = loom("inspect", tmp_path / "bad.safetensors", tmp_path / "none.safetensors", lora, "--json")
    assert status == 1
    assert [document["file"] for document in json.loads(out)] == ["ink.safetensors"]
    assert err.splitlines() == [
        "loom: bad.safetensors: a web page, not safetensors. The download failed: get the file again.",
        f"loom: {tmp_path / 'none.safetensors'}: there is no such file. Check the path.",
    ]


def test_inspect_for_a_given_architecture(loom: Loom, lora: Path) -> None:
    status, _, err = loom("inspect", lora, "--architecture", "sdxl")
    assert status == 1
    assert one_line(err)
    assert "made for Loom Demo, the model is SDXL" in err


def test_check_names_what_is_broken(loom: Loom, tmp_path: Path) -> None:
    tensors = small_models.lora_tensors(only="attn1")
    names = sorted(key.removesuffix(".lora_up.weight") for key in tensors if key.endswith(".lora_up.weight"))
    tensors[f"{names[0]}.lora_up.weight"][0, 0] = torch.nan
    tensors[f"{names[1]}.lora_down.weight"][0, :2] = torch.inf
    tensors[f"{names[2]}.lora_up.weight"].zero_()
    tensors[f"{names[3]}.lora_down.weight"][0, 0] = 20_000
    tensors["left.over"] = torch.tensor([torch.nan])
    save_file(tensors, tmp_path / "ink.safetensors")

    status, out, err = loom("inspect", tmp_path / "ink.safetensors", "--check", "--json")

    assert status == 1
    assert one_line(err)
    assert "NaN or infinite" in err
    check = json.loads(out)[0]["check"]
    broken = {one["key"]: (one["nan"], one["infinite"]) for one in check["not_finite"]}
    assert broken == {f"{names[0]}.lora_up.weight": (1, 0), f"{names[1]}.lora_down.weight": (0, 2), "left.over": (1, 0)}
    assert check["zero"] == [f"{names[2]}.lora_up.weight"]
    assert check["unchanged"] == [{"module": names[2], "zero": [f"{names[2]}.lora_up.weight"]}]
    assert check["huge"] == [{"key": f"{names[3]}.lora_down.weight", "largest": 20_000.0}]
    assert check["tensors"] == len(tensors)

    status, out, err = loom("inspect", tmp_path / "ink.safetensors", "--check")
    assert status == 1
    assert f"{names[1]}.lora_down.weight: 0 NaN and 2 infinite of" in out
    assert f"1 modules change nothing (such as: {names[2]}.lora_up.weight is all zeros)" in out


def test_check_of_a_sound_file(loom: Loom, lora: Path) -> None:
    status, out, err = loom("inspect", lora, "--check")
    assert (status, err) == (0, "")
    assert "all of finite numbers" in out
    assert "check" not in json.loads(loom("inspect", lora, "--json").out)[0]


def test_inspect_reads_pickles_and_folders(loom: Loom, tmp_path: Path) -> None:
    checkpoint = {"state_dict": small_models.lora_tensors(only="attn1"), "optimizer": [1], "epoch": 3}
    torch.save(checkpoint, tmp_path / "ink.ckpt")
    (tmp_path / "folder").mkdir()
    save_file(small_models.lora_tensors(only="attn1"), tmp_path / "folder" / "adapter_model.safetensors")
    status, out, err = loom("inspect", tmp_path / "ink.ckpt", tmp_path / "folder", "--check", "--json")
    assert (status, err) == (0, "")
    pickle, folder = json.loads(out)
    assert pickle["tensors"] == folder["tensors"]
    assert pickle["metadata"] == {"epoch": "3"}
    assert pickle["notes"] == ["optimizer holds no tensor of a LoRA, so it is left out"]
    assert pickle["hashes"]["autov3"] is None
    assert folder["file"] == "folder/adapter_model.safetensors"
    assert folder["hashes"]["autov3"]


def test_inspect_shows_notes_to_people_too(loom: Loom, tmp_path: Path) -> None:
    torch.save(small_models.lora_tensors(only="attn1") | {"optimizer": [1]}, tmp_path / "ink.pt")
    status, out, _ = loom("inspect", tmp_path / "ink.pt")
    assert status == 0
    assert "optimizer holds no tensor of a LoRA, so it is left out" in " ".join(out.split())


def test_inspect_of_a_folder_is_a_line_a_file(loom: Loom, lora: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    lora.rename(tmp_path / "sub" / "ink.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"<html></html>")
    status, out, err = loom("inspect", tmp_path)
    assert status == 1
    assert err == "loom: bad.safetensors: a web page, not safetensors. The download failed: get the file again.\n"
    assert f"{tmp_path.name}: 1 of 2 files" in out
    assert "sub/ink.safetensors" in out
    assert "loom_demo, lora rank 4, kohya" in out
    assert "trigger: [bold]ink[/bold]" in out

    status, out, _ = loom("inspect", tmp_path, "--json")
    assert status == 1
    assert [entry["path"] for entry in json.loads(out)] == ["bad.safetensors", "sub/ink.safetensors"]
    assert "error" in json.loads(out)[0]


def test_inspect_of_an_empty_folder_says_so(loom: Loom, tmp_path: Path) -> None:
    status, out, err = loom("inspect", tmp_path)
    assert (status, out) == (1, "")
    assert one_line(err)
    assert "no LoRA file in this folder" in err


def test_inspect_of_a_folder_checks_each_file(loom: Loom, lora: Path, tmp_path: Path) -> None:
    """What headers do not say is not left out in silence."""
    (tmp_path / "sub").mkdir()
    lora.rename(tmp_path / "sub" / "ink.safetensors")
    tensors = small_models.lora_tensors(only="attn1")
    broken = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[broken] = tensors[broken] * float("nan")
    save_file(tensors, tmp_path / "bad.safetensors")
    status, out, err = loom("inspect", tmp_path, "--check")
    assert status == 1
    assert err.startswith(f"loom: bad.safetensors: {broken}: ")
    assert "all of finite numbers" in out  # of the other file

    status, out, _ = loom("inspect", tmp_path / "sub", "--modules", "--json")
    (document,) = json.loads(out)
    assert status == 0
    assert len(document["modules"]) == 129


def test_inspect_of_a_folder_without_loras(loom: Loom, tmp_path: Path) -> None:
    for more in ((), ("--check",)):
        status, _, err = loom("inspect", tmp_path, *more)
        assert (status, err) == (1, f"loom: {tmp_path.name}: there is no LoRA file in this folder. Check the path.\n")
