"""``loom merge-to-checkpoint`` on a checkpoint of full size: streamed, so memory does not grow with the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import inventories
from small_models import random
from sparse_files import sparse_file

RANK = 16
# Runs a command and says the peak of its memory. A process begins with the peak of the one that started it, and a
# test session may have gigabytes: so a small one in between.
MEASURED = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
UNET = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_k.weight"
TEXT = "cond_stage_model.model.transformer.resblocks.7.attn.in_proj_weight"


def lora(shapes: dict[str, tuple[int, int]]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, (out, into) in shapes.items():
        tensors[f"{name}.lora_down.weight"] = random((RANK, into), len(tensors)).half()
        tensors[f"{name}.lora_up.weight"] = random((out, RANK), len(tensors)).half()
        tensors[f"{name}.alpha"] = torch.tensor(RANK / 2)
    return tensors


def delta(tensors: dict[str, torch.Tensor], name: str, strength: float) -> torch.Tensor:
    up, down = tensors[f"{name}.lora_up.weight"].double(), tensors[f"{name}.lora_down.weight"].double()
    return strength * 0.5 * (up @ down)


@pytest.mark.slow
def test_sd_2_whole_in_little_memory(keys: Path, tmp_path: Path, repository: Path) -> None:
    """2.6 GB of fp16, the attention of it changed, in less than 1.5 GB, of which Python and torch have 0.4.

    The base is a hole, all zero, so what a layer holds afterwards is the change alone, rounded to fp16.
    """
    tensors = inventories.read(keys / "base" / "sd21__ldm.json")["tensors"]
    base = sparse_file(tmp_path / "base.safetensors", tensors)
    layers = {
        key.removesuffix(".weight"): tuple(shape)
        for key, shape in inventories.read(keys / "base" / "sd21__diffusers_unet.json")["tensors"].items()
        if ".attn" in key and key.endswith(".weight")
    }
    text = {f"text_model.encoder.layers.{n}.self_attn.{x}_proj": (1024, 1024) for n in range(23) for x in "qkv"}
    names = {f"lora_unet_{path.replace('.', '_')}": shape for path, shape in layers.items()}
    names |= {f"lora_te_{path.replace('.', '_')}": shape for path, shape in text.items()}
    factors = lora(names)
    save_file(factors, tmp_path / "lora.safetensors")
    out = tmp_path / "merged.safetensors"

    command = [sys.executable, "-m", "lora_core", "merge-to-checkpoint", str(base), "-o", str(out), "--json"]
    command += ["--lora", f"{tmp_path / 'lora.safetensors'}:0.8:0.5"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], cwd=repository, capture_output=True, text=True, check=True
    )
    report, peak = json.loads(done.stdout), int(done.stderr.splitlines()[-1])

    assert report["architecture"] == "sd21"
    # q, k and v of a text layer are one tensor.
    assert report["tensors"] == {"total": len(tensors), "patched": len(layers) + 23}
    assert out.stat().st_size > 2_500_000_000
    assert peak * 1024 < 1_500_000_000  # kilobytes; 0.45 GB here
    with safe_open(out, "pt") as merged:
        unet = delta(factors, "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k", 0.8)
        name = "lora_te_text_model_encoder_layers_7_self_attn_{}_proj"
        fused = torch.cat([delta(factors, name.format(letter), 0.5) for letter in "qkv"])
        for key, expected in ((UNET, unet), (TEXT, fused)):
            # Half a step of fp16 for numbers below 0.5.
            torch.testing.assert_close(merged.get_tensor(key).double(), expected, rtol=0, atol=2**-12 / 2 + 1e-6)
        assert not merged.get_tensor("model.diffusion_model.out.2.weight").any()
