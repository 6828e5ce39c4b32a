"""Where the files of a run are."""

from __future__ import annotations

from pathlib import Path

from lora_core.train.output import RunFolder


def test_names(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat")

    assert folder.lora() == tmp_path / "cat.safetensors"
    assert folder.lora(500) == tmp_path / "cat-000500.safetensors"
    assert folder.sample(500, 2) == tmp_path / "cat.run" / "samples" / "cat-000500-2.png"
    assert RunFolder(tmp_path, "cat", "peft").lora(500) == tmp_path / "cat-000500"
    assert not list(tmp_path.iterdir())


def test_old_files_of_steps_go_and_no_others(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat[1]")  # brackets mean something to glob
    kept = [folder.lora(), folder.lora(300), tmp_path / "cat1-000100.safetensors", tmp_path / "dog-000100.safetensors"]
    old = [folder.lora(100), tmp_path / "cat[1]-000100.s1.safetensors", folder.lora(200)]
    for path in (*kept, *old):
        path.touch()

    removed = folder.prune(1)

    assert sorted(removed) == sorted(old)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_embeddings_that_no_lora_goes_with_are_files_of_a_step_too(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat")
    for step in (100, 200):
        for word in ("s1", "s2"):
            (tmp_path / f"cat-{step:06d}.{word}.safetensors").touch()

    folder.prune(1)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"cat-000200.{word}.safetensors" for word in ("s1", "s2")
    ]


def test_zero_keeps_all(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat")
    folder.lora(100).touch()

    assert folder.prune(0) == []
    assert list(folder.steps()) == [100]


def test_folders_of_peft_are_removed_whole(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat", "peft")
    for step in (100, 200):
        folder.lora(step).mkdir()
        (folder.lora(step) / "adapter_model.safetensors").touch()

    folder.prune(1)

    assert [path.name for path in tmp_path.iterdir()] == ["cat-000200"]


def test_steps_of_a_run_that_is_longer_than_its_digits(tmp_path: Path):
    folder = RunFolder(tmp_path, "cat")
    for step in (2_000_000, 999_999):
        folder.lora(step).touch()

    assert list(folder.steps()) == [999_999, 2_000_000]
