"""Checkpoints as they are in the field: whole, one component only, old names, pipeline folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_models
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import CorruptFileError, UnknownCheckpointError
from lora_core.merge import open_checkpoint
from lora_core.merge.folder import CONFIGS_KEY
from lora_core.types import DENOISER, TEXT_ENCODER, TEXT_ENCODER_2, ModuleKey, Target
from sparse_files import sparse_file


def inventory(keys: Path, name: str) -> dict[str, Any]:
    return json.loads((keys / "base" / f"{name}.json").read_text())


def from_inventory(keys: Path, name: str, path: Path) -> Path:
    content = inventory(keys, name)
    return sparse_file(path, content["tensors"], content.get("dtypes"))


# inventory -> architecture, and the place of the first attention's query
QUERY = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
WHOLE = {
    "sd15__ldm": ("sd15", f"model.diffusion_model.{QUERY}.weight"),
    "sd15__ldm-nai": ("sd15", f"model.diffusion_model.{QUERY}.weight"),
    "sd15-inpaint__ldm-unet": ("sd15_inpaint", f"model.diffusion_model.{QUERY}.weight"),
    "sd15__diffusers_unet": ("sd15", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_real_sd15_checkpoints_are_known(tmp_path: Path, keys: Path, name: str) -> None:
    architecture, place = WHOLE[name]
    checkpoint = open_checkpoint(from_inventory(keys, name, tmp_path / "model.safetensors"))
    assert checkpoint.architecture.name == architecture
    target = Target(ModuleKey(DENOISER, QUERY))
    assert checkpoint.places[target].key == place
    assert checkpoint.shape_of(target) == (320, 320)


def test_an_old_text_encoder_is_found_without_its_level(tmp_path: Path, keys: Path) -> None:
    checkpoint = open_checkpoint(from_inventory(keys, "sd15__ldm-nai", tmp_path / "nai.safetensors"))
    target = Target(ModuleKey(TEXT_ENCODER, "text_model.encoder.layers.3.mlp.fc1"))
    assert checkpoint.places[target].key == "cond_stage_model.transformer.encoder.layers.3.mlp.fc1.weight"


def test_an_inpainting_model_keeps_its_wide_entry(tmp_path: Path, keys: Path) -> None:
    checkpoint = open_checkpoint(from_inventory(keys, "sd15-inpaint__ldm-unet", tmp_path / "inpaint.safetensors"))
    assert checkpoint.shape_of(Target(ModuleKey(DENOISER, "input_blocks.0.0"))) == (320, 9, 3, 3)


def test_sdxl_with_its_fused_and_transposed_text_encoder(tmp_path: Path, keys: Path) -> None:
    checkpoint = open_checkpoint(from_inventory(keys, "sdxl__sgm", tmp_path / "xl.safetensors"))
    assert checkpoint.architecture.name == "sdxl"
    value = Target(ModuleKey(TEXT_ENCODER_2, "text_model.encoder.layers.31.self_attn.v_proj"))
    place = checkpoint.places[value]
    assert place.key == "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight"
    assert place.slice == (0, 2560, 1280)
    assert checkpoint.shape_of(value) == (1280, 1280)
    assert checkpoint.places[Target(ModuleKey(TEXT_ENCODER_2, "text_projection"))].transposed
    assert len(checkpoint.places) == sum(len(module.shapes) for _, module in checkpoint.architecture.walk())


@pytest.mark.parametrize(
    ("rename", "place"),
    [
        (lambda key: key, f"model.diffusion_model.{QUERY}.weight"),
        (lambda key: key.removeprefix("model."), f"diffusion_model.{QUERY}.weight"),
        (lambda key: key.removeprefix("model.diffusion_model."), f"{QUERY}.weight"),
    ],
    ids=["whole", "comfy unet", "bare unet"],
)
def test_prefixes_in_use(tmp_path: Path, rename: Any, place: str) -> None:
    small_models.write_checkpoint(tmp_path / "model.safetensors", rename=rename)
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.architecture.name == "loom_demo"
    assert checkpoint.places[Target(ModuleKey(DENOISER, QUERY))].key == place


def test_a_component_that_is_not_there_has_no_places(tmp_path: Path) -> None:
    tensors = small_models.checkpoint_tensors()
    denoiser = {key: tensor for key, tensor in tensors.items() if key.startswith("model.")}
    save_file(denoiser, tmp_path / "unet.safetensors")
    checkpoint = open_checkpoint(tmp_path / "unet.safetensors")
    assert {target.module.component for target in checkpoint.places} == {DENOISER}
    assert checkpoint.shape_of(Target(ModuleKey(TEXT_ENCODER, "text_model.final_layer_norm"))) is None


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    save_file({"some.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        UnknownCheckpointError, match=r"other\.safetensors: not a checkpoint of a known model.*some\.weight"
    ):
        open_checkpoint(tmp_path / "other.safetensors")
    save_file(small_models.lora_tensors(), tmp_path / "lora.safetensors")
    with pytest.raises(UnknownCheckpointError, match="looks like a LoRA: give it as one"):
        open_checkpoint(tmp_path / "lora.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UnknownCheckpointError, match="holds no tensor"):
        open_checkpoint(tmp_path / "empty.safetensors")
    with pytest.raises(FileNotFoundError):
        open_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("base", "single", "parts"),
    [
        ("sd15", "sd15__ldm", ["unet", "text_encoder", "vae"]),
        ("sdxl", "sdxl__sgm", ["unet", "text_encoder", "text_encoder_2", "vae"]),
    ],
)
def test_a_real_pipeline_folder_has_the_names_and_shapes_of_the_single_file(
    tmp_path: Path, keys: Path, base: str, single: str, parts: list[str]
) -> None:
    for part in parts:
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        from_inventory(keys, f"{base}__diffusers_{part}", tmp_path / "pipe" / part / f"{stem}.fp16.safetensors")

    checkpoint = open_checkpoint(tmp_path / "pipe")
    expected = {
        key: tuple(shape)
        for key, shape in inventory(keys, single)["tensors"].items()
        if key.startswith(("model.", "cond", "first")) and not key.endswith(("position_ids", "logit_scale"))
    }

    assert checkpoint.architecture.name == base
    assert {key: stored.shape for key, stored in checkpoint.tensors.items()} == expected
    assert checkpoint.left_out == {}


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_names_agree_with_the_published_map(tmp_path: Path, keys: Path, base: str) -> None:
    """Each diffusers tensor ends where the map of another tool has it."""
    parts = {"sd15": ("unet", "text_encoder", "vae"), "sdxl": ("unet", "text_encoder", "text_encoder_2", "vae")}[base]
    for part in parts:
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        from_inventory(keys, f"{base}__diffusers_{part}", tmp_path / "pipe" / part / f"{stem}.safetensors")
    checkpoint = open_checkpoint(tmp_path / "pipe")
    folders = {path: name.split("/")[0] for name, path in checkpoint.files.items()}
    ours = {
        key: [f"{folders[piece.ref.source.path]}.{piece.ref.name}" for piece in stored.pieces]  # type: ignore[attr-defined]
        for key, stored in checkpoint.tensors.items()
    }
    published = json.loads((keys / "maps" / f"{base}__ldm_to_diffusers.json").read_text())["tensors"]
    compared = 0
    for key, names in published.items():
        if key in ours:
            assert ours[key] == (names["cat"] if isinstance(names, dict) else [names]), key
            compared += 1
    assert compared > 1000


def test_the_demo_model_becomes_a_checkpoint(repository: Path) -> None:
    folder = repository / "demo" / "model"
    checkpoint = open_checkpoint(folder)
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")

    assert checkpoint.architecture.name == "loom_demo"
    assert checkpoint.label == "model"
    assert torch.equal(checkpoint.load("model.diffusion_model.out.2.weight"), unet["conv_out.weight"])
    query = vae["encoder.mid_block.attentions.0.to_q.weight"]
    assert torch.equal(checkpoint.load("first_stage_model.encoder.mid.attn_1.q.weight"), query[:, :, None, None])
    configs = json.loads(checkpoint.metadata[CONFIGS_KEY])
    assert configs["scheduler"]["prediction_type"] == "v_prediction"
    assert configs["vae"]["latent_channels"] == 16
    assert len(checkpoint.places) == sum(len(module.shapes) for _, module in checkpoint.architecture.walk())


def test_diffusers_reads_the_names_back(repository: Path) -> None:
    """Its own single-file loader turns our keys into the tensors of the folder."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    folder = repository / "demo" / "model"
    checkpoint = open_checkpoint(folder)
    tensors = {key: checkpoint.load(key) for key in checkpoint.tensors}
    for part, convert in (("unet", convert_ldm_unet_checkpoint), ("vae", convert_ldm_vae_checkpoint)):
        config = json.loads((folder / part / "config.json").read_text())
        expected = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        converted = convert(dict(tensors), config)
        assert set(converted) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(converted[name].reshape(tensor.shape), tensor), name


POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


def write_folder(path: Path) -> dict[str, torch.Tensor]:
    """A pipeline folder of the demo's architecture, its text encoder in the names that transformers 5 has inside."""
    tensors = small_models.checkpoint_tensors()
    parts: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "text_encoder": {}}
    for component in small_models.DEMO.components:
        for module in component.modules.values():
            for parameter in module.shapes:
                name = f"{module.diffusers}.{parameter}".removeprefix("text_model.")
                place = component.place(module.path, parameter)
                parts[component.diffusers_prefix][name] = tensors[place.key]
    for part, content in parts.items():
        (path / part).mkdir(parents=True)
        stem = "diffusion_pytorch_model" if part == "unet" else "model"
        if part == "text_encoder":
            content["embeddings.position_ids"] = small_models.OTHER[POSITION_IDS]
        save_file(content, path / part / f"{stem}.safetensors")
    return tensors


def test_a_text_encoder_without_its_level_and_shards(tmp_path: Path) -> None:
    tensors = write_folder(tmp_path / "pipe")
    unet = tmp_path / "pipe" / "unet"
    whole = load_file(unet / "diffusion_pytorch_model.safetensors")
    names = sorted(whole)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: whole[name] for name in part}, unet / shard)
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))

    checkpoint = open_checkpoint(tmp_path / "pipe")
    expected = {key for key in tensors if key not in small_models.OTHER or key == POSITION_IDS}
    assert set(checkpoint.tensors) == expected
    assert all(torch.equal(checkpoint.load(key), tensors[key]) for key in expected)
    assert set(checkpoint.files) == {"unet/one.safetensors", "unet/two.safetensors", "text_encoder/model.safetensors"}


BAD_INDEXES = {
    "weight_map a list": ('{"weight_map": []}', "has no weight_map"),
    "weight_map empty": ('{"weight_map": {}}', "has no weight_map"),
    "no weight_map": ("{}", "has no weight_map"),
    "outside": ('{"weight_map": {"a": "../../x.safetensors"}}', "names '../../x.safetensors', expected a .safetensors"),
    "outside, other slash": ('{"weight_map": {"a": "..\\\\x.safetensors"}}', "expected a .safetensors file"),
    "absolute": ('{"weight_map": {"a": "/x.safetensors"}}', "expected a .safetensors file of its folder"),
    "a number": ('{"weight_map": {"a": 1}}', "names 1, expected a .safetensors file of its folder"),
    "another kind": ('{"weight_map": {"a": "x.bin"}}', "names 'x.bin', expected"),
    "deep": ("[" * 100_000, "not JSON"),
    "a list": ("[]", "a JSON list, expected an object"),
    "no text": ("\udcff", "not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_a_bad_index_of_shards_is_one_line(tmp_path: Path, case: str) -> None:
    text, expected = BAD_INDEXES[case]
    write_folder(tmp_path / "pipe")
    unet = tmp_path / "pipe" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(tmp_path / "x.safetensors")
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(text, encoding="utf-8", errors="surrogateescape")

    with pytest.raises(CorruptFileError) as caught:
        open_checkpoint(tmp_path / "pipe")

    assert str(caught.value).startswith(f"pipe/unet/{index.name}: ")
    assert expected in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{"], ids=["deep", "a list", "cut"])
def test_a_bad_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    write_folder(tmp_path / "pipe")
    (tmp_path / "pipe" / "unet" / "config.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"^pipe/unet/config\.json: .*JSON"):
        open_checkpoint(tmp_path / "pipe")


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "pipe")
    path = tmp_path / "pipe" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"adapter.weight": torch.ones(2)}, path)
    left_out = open_checkpoint(tmp_path / "pipe").left_out
    assert left_out == {"unet/adapter.weight": "a single-file checkpoint of Loom Demo has no such tensor"}


def test_folders_that_are_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpointError, match="no safetensors files of a UNet"):
        open_checkpoint(tmp_path)
    (tmp_path / "pipe" / "unet").mkdir(parents=True)
    (tmp_path / "pipe" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(CorruptFileError, match="pipe/unet: holds no safetensors weights"):
        open_checkpoint(tmp_path / "pipe")


def test_a_fused_matrix_with_a_part_missing(tmp_path: Path, keys: Path) -> None:
    content = inventory(keys, "sdxl__diffusers_text_encoder_2")["tensors"]
    del content["text_model.encoder.layers.0.self_attn.v_proj.weight"]
    sparse_file(tmp_path / "pipe" / "text_encoder_2" / "model.safetensors", content)
    with pytest.raises(
        CorruptFileError, match=r"parts of .*resblocks\.0\.attn\.in_proj_weight are missing: 2 are there"
    ):
        open_checkpoint(tmp_path / "pipe")


def test_every_architecture_is_told_from_the_others(tmp_path: Path) -> None:
    for row in ARCHITECTURES:
        shapes = {}
        for key, module in row.walk():
            for parameter, shape in module.shapes.items():
                place = row.place(Target(key, parameter))
                assert place is not None
                if place.slice is None:
                    shapes[place.key] = shape[::-1] if place.transposed else shape
        path = sparse_file(tmp_path / f"{row.name}.safetensors", shapes)
        assert open_checkpoint(path).architecture is row
