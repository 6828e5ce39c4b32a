"""What may be chosen beside the stack: another VAE, and text encoders left as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import inventories
import small_models
from lora_core.architectures import ARCHITECTURES
from lora_core.cli import main
from lora_core.errors import ConfigError, ShapeMismatchError
from lora_core.merge import merge_to_checkpoint, open_checkpoint, vae_names
from lora_core.merge.vae import with_vae
from small_models import adapter, lora_tensors, stack_of
from sparse_files import sparse_file

KEY = "first_stage_model.decoder.conv_in.weight"
TEXT = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
UNET = "model.diffusion_model.input_blocks.1.1.proj_in.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    small_models.write_checkpoint(path)
    return path


def write_vae(path: Path, name: str = "decoder.conv_in.weight", shape: tuple[int, ...] = (8, 4, 3, 3)) -> torch.Tensor:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    save_file({name: tensor, "loss.logvar": torch.zeros(1)}, path)
    return tensor


@pytest.mark.parametrize("name", ["decoder.conv_in.weight", KEY], ids=["bare", "prefixed"])
def test_a_vae_takes_the_place_of_the_checkpoints_own(base: Path, tmp_path: Path, name: str) -> None:
    wanted = write_vae(tmp_path / "crisp.safetensors", name)
    out = tmp_path / "merged.safetensors"
    merge_to_checkpoint(base, stack_of(adapter(lora_tensors())), out, vae=tmp_path / "crisp.safetensors")
    merged, before = load_file(out), load_file(base)
    assert torch.equal(merged[KEY], wanted)
    assert merged.keys() == before.keys(), "nothing of the training run comes along"
    assert not torch.equal(merged[UNET], before[UNET])


def test_a_vae_of_another_family_is_refused(base: Path, tmp_path: Path) -> None:
    write_vae(tmp_path / "wide.safetensors", shape=(8, 16, 3, 3))
    with pytest.raises(ShapeMismatchError, match=r"wide.safetensors: .*conv_in.weight: expected \(8, 4, 3, 3\), got"):
        merge_to_checkpoint(
            base, stack_of(adapter(lora_tensors())), tmp_path / "out.safetensors", vae=tmp_path / "wide.safetensors"
        )
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_no_vae_is_refused(base: Path, tmp_path: Path) -> None:
    save_file(lora_tensors(), tmp_path / "ink.safetensors")
    with pytest.raises(ConfigError, match=r"ink.safetensors: no VAE: its keys look like 'lora_"):
        merge_to_checkpoint(
            base, stack_of(adapter(lora_tensors())), tmp_path / "out.safetensors", vae=tmp_path / "ink.safetensors"
        )


def test_text_encoders_may_stay_as_they_are(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    merge_to_checkpoint(base, stack_of(adapter(lora_tensors())), out, text_encoders=False)
    merged, before = load_file(out), load_file(base)
    assert torch.equal(merged[TEXT], before[TEXT])
    assert not torch.equal(merged[UNET], before[UNET])


def test_both_from_the_command_line(base: Path, tmp_path: Path) -> None:
    wanted = write_vae(tmp_path / "crisp.safetensors")
    save_file(lora_tensors(), tmp_path / "ink.safetensors")
    out = tmp_path / "merged.safetensors"
    options = ["--keep-text-encoders", "--vae", str(tmp_path / "crisp.safetensors"), "-o", str(out)]
    assert main(["merge-to-checkpoint", str(base), "--lora", str(tmp_path / "ink.safetensors"), *options]) == 0
    merged = load_file(out)
    assert torch.equal(merged[KEY], wanted)
    assert torch.equal(merged[TEXT], load_file(base)[TEXT])


def test_families_keep_their_vae_under_one_of_two_prefixes() -> None:
    assert {row.name for row in ARCHITECTURES} >= vae_names.STABILITY
    assert vae_names.prefix_of(ARCHITECTURES.get("sdxl_inpaint")) == "first_stage_model."
    assert vae_names.prefix_of(ARCHITECTURES.get("sd35_large")) == "first_stage_model."
    assert vae_names.prefix_of(ARCHITECTURES.get("flux")) == "vae."


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_a_vae_in_a_checkpoint_of_a_later_family(prefix: str, keys: Path, tmp_path: Path) -> None:
    """FLUX.1's checkpoints say ``vae.``: the new one goes there, and there is no second one."""
    own = inventories.read(keys / "base" / "flux-dev__comfy-allinone.json")["tensors"]
    checkpoint = open_checkpoint(sparse_file(tmp_path / "flux.safetensors", own))
    vae = {prefix + key.removeprefix("vae."): shape for key, shape in own.items() if key.startswith("vae.")}
    changed = with_vae(checkpoint, sparse_file(tmp_path / "vae.safetensors", vae))

    assert changed.tensors.keys() == checkpoint.tensors.keys()
    sources = {key: stored.pieces[0].ref.source.label for key, stored in changed.tensors.items()}
    assert {label for key, label in sources.items() if key.startswith("vae.")} == {"vae.safetensors"}
    assert {label for key, label in sources.items() if not key.startswith("vae.")} == {"flux.safetensors"}


def test_a_vae_that_is_named_otherwise_takes_the_place_of_its_like(base: Path, tmp_path: Path) -> None:
    """Wan's VAE has no ``decoder.conv_in``; a file with the names of the one that is there will do."""
    tensors = {key: tensor for key, tensor in load_file(base).items() if not key.startswith("first_stage_model.")}
    save_file(tensors | {"vae.decoder.conv1.weight": torch.zeros(4, 4)}, tmp_path / "wan.safetensors")
    save_file({"decoder.conv1.weight": torch.ones(4, 4)}, tmp_path / "vae.safetensors")
    changed = with_vae(open_checkpoint(tmp_path / "wan.safetensors"), tmp_path / "vae.safetensors")
    assert torch.equal(changed.load("vae.decoder.conv1.weight"), torch.ones(4, 4))
