"""A trained adapter becomes a file, or nothing is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lora_core import load_adapter
from lora_core.errors import ConversionError, NonFiniteError
from lora_core.inspect import inspect_file
from lora_core.io import file_hashes
from lora_core.train.output import NotAsTrainedError, save_embeddings, save_lora
from lora_core.train.output.saving import flushed

from .conftest import TOKEN, Train

FORMATS = ["kohya", "diffusers", "peft", "comfy"]


def place(folder: Path, format: str) -> Path:
    return folder / ("cat" if format == "peft" else "cat.safetensors")


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_each_format_and_type_does_what_was_trained(train: Train, tmp_path: Path, format: str, dtype: str):
    trained = train()

    saved = save_lora(trained.adapter, {}, place(tmp_path, format), format, dtype, deltas=trained.deltas)

    assert saved.check is not None
    assert saved.check.modules == len(trained.deltas) > 30
    # Two factors, each off by half a unit in the last place: 2^-11 in fp16, 2^-8 in bf16, nothing in fp32, where both
    # programs compute the same product (their sums differ in order by some units of 2^-24).
    assert saved.check.worst < {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}[dtype]
    assert saved.warnings == ()
    assert all(path.is_file() for path in saved.files)


@pytest.mark.parametrize("type", ["dora", "loha", "lokr", "oft"])
def test_every_type_of_adapter_does_what_was_trained(train: Train, tmp_path: Path, type: str):
    trained = train(type=type, size=0.05)
    deltas = trained.deltas

    saved = save_lora(
        trained.adapter, {}, tmp_path / "cat.safetensors", deltas=deltas, weight_of=deltas.weight
    )  # fmt: skip

    assert saved.check is not None
    assert saved.check.worst < 2e-3  # fp16, in a product of up to four factors


def test_magnitudes_of_dora_are_not_rounded_to_fp16(train: Train, tmp_path: Path):
    """They are of the size of the weight's norm: half a unit of fp16 there took 2 % of the change."""
    save_lora(train(type="dora").adapter, {}, tmp_path / "cat.safetensors")

    found = {key.rsplit(".", 1)[-1]: one.dtype for key, one in load_file(tmp_path / "cat.safetensors").items()}
    assert found["dora_scale"] == torch.float32
    assert found["weight"] == torch.float16


def test_a_start_at_the_bases_own_directions_is_saved_as_the_difference(train: Train, tmp_path: Path):
    trained = train(start="pissa")

    saved = save_lora(trained.adapter, {}, tmp_path / "cat.safetensors", dtype="fp32", deltas=trained.deltas)

    assert saved.check is not None
    assert saved.check.worst < 1e-5  # a difference of two products in float32, each larger than the difference
    assert inspect_file(saved.path)["ranks"] == {"8": len(trained.deltas)}


def test_embeddings_are_bundled_in_kohyas_format(train: Train, tmp_path: Path):
    trained = train()

    saved = save_lora(trained.adapter, TOKEN, tmp_path / "cat.safetensors", dtype="fp32", deltas=trained.deltas)

    assert saved.files == (tmp_path / "cat.safetensors",)
    assert torch.equal(load_file(saved.path)["bundle_emb.<s1>.clip_l"], TOKEN["<s1>"]["clip_l"])
    assert torch.equal(load_adapter(saved.path).embeddings["<s1>"]["clip_l"].load(), TOKEN["<s1>"]["clip_l"])
    assert "diffusers' load_lora_weights takes no file that has embeddings in it" in saved.warnings[0]


@pytest.mark.parametrize(
    ("format", "name"),
    [("diffusers", "cat.s1.safetensors"), ("comfy", "cat.s1.safetensors"), ("peft", "cat/s1.safetensors")],
)
def test_embeddings_stand_beside_the_file_in_other_formats(train: Train, tmp_path: Path, format: str, name: str):
    trained = train()

    saved = save_lora(trained.adapter, TOKEN, place(tmp_path, format), format, "fp32", deltas=trained.deltas)

    assert tmp_path / name in saved.files
    assert torch.equal(load_file(tmp_path / name)["<s1>"], TOKEN["<s1>"]["clip_l"])
    assert saved.warnings == ()


def test_embeddings_of_two_encoders_are_under_the_encoders_names(tmp_path: Path):
    both = {"<s1>": {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}}

    (file,) = save_embeddings(both, tmp_path / "cat.safetensors")

    assert {key: tuple(one.shape) for key, one in load_file(file).items()} == {"clip_l": (1, 768), "clip_g": (1, 1280)}


def test_diffusers_reads_the_embedding_beside_the_file(repository: Path, tmp_path: Path):
    from diffusers import StableDiffusionPipeline

    (file,) = save_embeddings(TOKEN, tmp_path / "cat.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(repository / "demo" / "model", local_files_only=True)

    pipeline.load_textual_inversion(str(file))

    number = pipeline.tokenizer.convert_tokens_to_ids("<s1>")
    table = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[number], TOKEN["<s1>"]["clip_l"][0].to(table.dtype))


def test_hashes_are_of_the_tensors_bytes(train: Train, tmp_path: Path):
    save_lora(train(rank=64, targets="all").adapter, {}, tmp_path / "cat.safetensors", metadata={"ss_seed": "1"})

    content = (tmp_path / "cat.safetensors").read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    known = metadata_of(tmp_path / "cat.safetensors")
    assert known["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert known["modelspec.hash_sha256"] == "0x" + known["sshs_model_hash"]
    assert file_hashes(tmp_path / "cat.safetensors").autov3 == known["sshs_model_hash"][:12]


def test_the_old_hash_is_that_of_the_file_with_its_training_metadata_alone(train: Train, tmp_path: Path):
    """As kohya-ss/sd-scripts computes it: other metadata may change later, and the hash stays."""
    path = tmp_path / "cat.safetensors"
    save_lora(train(rank=64, targets="all").adapter, {}, path, metadata={"ss_seed": "1", "modelspec.title": "Cat"})

    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    known = header["__metadata__"]
    header["__metadata__"] = {"ss_seed": "1"}
    plain = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    plain += b" " * (-len(plain) % 8)
    whole = len(plain).to_bytes(8, "little") + plain + content[8 + length :]
    assert len(whole) > 0x100000
    assert known["sshs_legacy_hash"] == hashlib.sha256(whole[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]


def test_a_file_that_does_not_do_what_was_trained_replaces_nothing(train: Train, tmp_path: Path):
    trained = train()
    path = tmp_path / "cat.safetensors"
    save_lora(trained.adapter, {}, path)
    before = path.read_bytes()
    other = {key: 1.5 * trained.deltas[key] for key in trained.deltas}

    with pytest.raises(NotAsTrainedError, match=r"cat\.safetensors: .*differs from the trained one"):
        save_lora(trained.adapter, {}, path, deltas=other)

    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["cat.safetensors"]


def test_numbers_that_are_not_finite_are_never_saved(train: Train, tmp_path: Path):
    trained = train()
    with torch.no_grad():
        next(trained.network.parameters())[0, 0] = torch.nan

    with pytest.raises(NonFiniteError):
        save_lora(trained.adapter, {}, tmp_path / "cat.safetensors")

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_save_left_is_removed_by_the_next(train: Train, tmp_path: Path):
    (tmp_path / ".cat.safetensors.saving-0123abcd").mkdir()
    (tmp_path / ".dog.safetensors.saving-0123abcd").mkdir()

    save_lora(train().adapter, {}, tmp_path / "cat.safetensors")

    assert sorted(one.name for one in tmp_path.iterdir()) == [".dog.safetensors.saving-0123abcd", "cat.safetensors"]


def test_a_type_that_the_format_cannot_say_is_refused(train: Train, tmp_path: Path):
    with pytest.raises(ConversionError, match="Choose another format"):
        save_lora(train(type="lokr").adapter, {}, tmp_path / "cat.safetensors", "diffusers")


def test_the_user_is_told_of_numbers_that_are_too_small_for_fp16(train: Train, tmp_path: Path):
    trained = train()
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter *= 1e-6

    saved = save_lora(trained.adapter, {}, tmp_path / "cat.safetensors")

    assert "too small for fp16" in saved.warnings[0]
    assert save_lora(trained.adapter, {}, tmp_path / "cat.safetensors", dtype="bf16").warnings == ()


def test_values_that_become_zero_are_counted():
    """Half of fp16's smallest number, 2^-25, rounds to zero; what is zero already does not count, nor does an alpha."""
    assert flushed([torch.tensor([0.0, 2.0**-25, 2.0**-24, 1.0]), torch.tensor(1e-9)]) == (1, 3)


def test_embeddings_beside_the_file_are_read_back_too(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lora_core.train.output import saving

    whole = saving.save_embeddings

    def half(embeddings: saving.Embeddings, beside: Path, dtype: str) -> tuple[Path, ...]:
        return whole({token: {e: one / 2 for e, one in by.items()} for token, by in embeddings.items()}, beside, dtype)

    monkeypatch.setattr(saving, "save_embeddings", half)

    with pytest.raises(NotAsTrainedError, match="embedding <s1> of clip_l: read back, it is another"):
        save_lora(train().adapter, TOKEN, tmp_path / "cat.safetensors", "diffusers")

    assert list(tmp_path.iterdir()) == []
