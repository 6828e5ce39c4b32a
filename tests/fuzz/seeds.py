"""Good inputs for the targets, from which drivers make bad ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import save

NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
METADATA = {
    "ss_network_dim": "4",
    "ss_network_args": '{"conv_dim": "4"}',
    "ss_tag_frequency": '{"16_ink girl": {"ink style": 12, "tree": 3}}',
    "ss_dataset_dirs": '{"16_ink girl": {"n_repeats": 16, "img_count": 12}}',
    "ss_datasets": '[{"subsets": [{"img_count": 12, "image_dir": "16_ink girl"}]}]',
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.trigger_phrase": "ink style, (bold, black:1.2)",
    "modelspec.thumbnail": "data:image/png;base64,AAAA",
    "sshs_model_hash": "ab" * 32,
}


def tensors(kind: str) -> dict[str, torch.Tensor]:
    """A few modules of SD 1.5 in some naming, and of some adapter type."""
    up, down = torch.ones(320, 4), torch.ones(4, 320)
    if kind == "kohya":
        return {f"{NAME}.lora_up.weight": up, f"{NAME}.lora_down.weight": down, f"{NAME}.alpha": torch.tensor(2.0)}
    if kind == "diffusers":
        return {f"unet.{PATH}.lora_B.weight": up, f"unet.{PATH}.lora_A.weight": down}
    if kind == "peft":
        return {f"base_model.model.{PATH}.lora_B.weight": up, f"base_model.model.{PATH}.lora_A.weight": down}
    if kind == "dora":
        return tensors("kohya") | {f"{NAME}.dora_scale": torch.ones(320, 1)}
    if kind == "loha":
        return {
            f"{NAME}.hada_w{n}_{letter}": (up if letter == "a" else down).clone() for n in (1, 2) for letter in "ab"
        }
    if kind == "lokr":
        return {f"{NAME}.lokr_w1": torch.ones(8, 8), f"{NAME}.lokr_w2": torch.ones(40, 40)}
    if kind == "full":
        return {f"{NAME}.diff": torch.ones(320, 320)}
    if kind == "oft":
        return {f"{NAME}.oft_blocks": torch.zeros(4, 80, 80), f"{NAME}.alpha": torch.tensor(0.1)}
    if kind == "ia3":
        return {f"{NAME}.weight": torch.ones(320), f"{NAME}.on_input": torch.tensor(False)}
    if kind == "cloneofsimo":
        return {"unet:0:up": up, "unet:0:down": down, "<s1>": torch.ones(768)}
    raise ValueError(kind)


KINDS = ("kohya", "diffusers", "peft", "dora", "loha", "lokr", "full", "oft", "ia3", "cloneofsimo")


def safetensors(kind: str) -> bytes:
    return save(tensors(kind), METADATA)


def pickled(value: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def lines(kind: str) -> bytes:
    return "\n".join(f"{key} {','.join(map(str, tensor.shape))}" for key, tensor in tensors(kind).items()).encode()


def seeds() -> dict[str, list[bytes]]:
    """Target -> good inputs."""
    files = [safetensors(kind) for kind in KINDS]
    headers = [data[8 : 8 + int.from_bytes(data[:8], "little")] for data in files]
    wrapped = {"state_dict": tensors("kohya"), "epoch": 3, "optimizer": [{"lr": 1e-4}]}
    pickles = [pickled(tensors("kohya")), pickled(wrapped), pickled(tensors("peft"), zipped=False)]
    inside: list[bytes] = []
    for data in pickles[:2]:
        with ZipFile(io.BytesIO(data)) as archive:
            inside.append(archive.read("archive/data.pkl"))
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {PATH: 2}, "rank_pattern": {}}
    unet = {f"unet.{key}": value for key, value in config.items()}
    return {
        "header": headers,
        "names": [lines(kind) for kind in KINDS],
        "metadata": ["\0".join(f"{key}={value}" for key, value in METADATA.items()).encode()],
        "settings": [json.dumps(one).encode() for one in (config | {"use_rslora": True, "use_dora": True}, unet)],
        "pickle": inside,
        "file": [*files, *pickles],
        "blocks": [b"in04=0.5, mid=0, out1-3=1", b"%default=0.5, base=1, in1-4=0", b"1,0.5,0,0,0", b"INK:1,1,0,1"],
        "prompt": [b"a boat <lora:ink:0.8:0.5>, <lora:b:te=1:unet=0.5:lbw=1,0,0>, <lora:c:0@0.2,1@0.6>, night"],
        "rows": [b'[{"on": true, "lora": "ink.safetensors", "model": 0.8, "clip": "0.5"}, ["a", 1, 1]]'],
        "options": [b"ink.safetensors:0.8:0.5", b"styles\\ink", b"abcdef0123"],
        "sidecar": [
            b'{"activation text": "ink style", "preferred weight": 0.8, "description": "x", "notes": "y"}',
            b'{"civitai": {"trainedWords": ["ink"], "files": [{"hashes": {"SHA256": "AB"}}]}, "usage_tips": "{}"}',
            b"ink style, bold",
        ],
    }


def write(folder: Path) -> None:
    """The seeds as files, ``<target>/<number>``, for a driver that wants folders."""
    for target, inputs in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / target / str(number)).write_bytes(data)


__all__ = ["KINDS", "pickled", "safetensors", "seeds", "tensors", "write"]
