"""Writing the demo's LoRAs the way other trainers do: kohya's names and diffusers' PEFT names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Module path -> (down, up), as PEFT holds them: lora_A and lora_B."""


def fp16(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float16).contiguous()


def kohya_tensors(unet: Factors, text_encoder: Factors, alpha: float) -> dict[str, Tensor]:
    """`lora_unet_<path with _>.lora_down.weight`, `.lora_up.weight`, `.alpha`; `lora_te_...`."""
    tensors: dict[str, Tensor] = {}
    for prefix, part in (("lora_unet_", unet), ("lora_te_", text_encoder)):
        for path, (down, up) in part.items():
            name = prefix + path.replace(".", "_")
            tensors[f"{name}.lora_down.weight"] = fp16(down)
            tensors[f"{name}.lora_up.weight"] = fp16(up)
            tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float16)
    return tensors


def peft_tensors(unet: Factors, text_encoder: Factors) -> dict[str, Tensor]:
    """`unet.<path>.lora_A.weight` and `.lora_B.weight`; these names have no place for alpha."""
    tensors: dict[str, Tensor] = {}
    for prefix, part in (("unet.", unet), ("text_encoder.", text_encoder)):
        for path, (down, up) in part.items():
            tensors[f"{prefix}{path}.lora_A.weight"] = fp16(down)
            tensors[f"{prefix}{path}.lora_B.weight"] = fp16(up)
    return tensors


def tag_frequency(folder: str, captions: list[str]) -> str:
    """kohya's `ss_tag_frequency`: {folder: {tag: count}} as JSON."""
    return json.dumps({folder: dict(Counter(captions).most_common())})


def body_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the tensor bytes alone, what follows the header in the file."""
    raw = save(dict(tensors))
    header = int.from_bytes(raw[:8], "little")
    return hashlib.sha256(raw[8 + header :]).hexdigest()


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """One safetensors file with its hashes in the metadata, renamed into place when complete."""
    digest = body_hash(tensors)
    hashes = {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"format": "pt"} | metadata | hashes)
    partial.replace(path)
