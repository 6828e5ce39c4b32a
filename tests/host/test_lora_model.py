"""LORA_MODEL: what our loader gives the host's own nodes is the LoRA, also where they do not read its format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphs
import lora_files
from host_harness.environment import HostEnvironment
from host_harness.host import ComfyHost

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def loras(comfy: ComfyHost) -> ComfyHost:
    """The denoiser's attention in kohya's names, in those of PEFT with alphas elsewhere, and numbered."""
    parts = lora_files.factors(
        "loom_demo", seed=21, modules=lora_files.ATTENTION, size=0.3, components=("denoiser",), rank=4
    )
    folder = comfy.loras / "handed"
    lora_files.save(folder / "kohya.safetensors", lora_files.kohya(parts, 2.0))
    own = {f"base_model.model.{key.removeprefix('unet.')}": value for key, value in lora_files.peft(parts).items()}
    lora_files.save(folder / "peft" / "adapter_model.safetensors", own)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 2}
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(config))
    stated = {f"unet.{name}": value for name, value in {"r": 4, "lora_alpha": 2}.items()}
    lora_files.save(folder / "diffusers.safetensors", lora_files.peft(parts), lora_adapter_metadata=json.dumps(stated))
    return comfy


def drawn(comfy: ComfyHost, graph: graphs.Graph) -> NDArray[np.int64]:
    (pixels,) = comfy.images(comfy.queue(graphs.demo() | graph), "picture")
    return pixels.astype(np.int64)


def loader(name: str, **inputs: object) -> graphs.Graph:
    return {
        "lora": graphs.node(
            "LoomLoraLoader", lora_name=f"handed/{name}", strength_model=1.0, strength_clip=1.0, **inputs
        )
    }


@pytest.mark.parametrize("name", ["kohya.safetensors", "peft/adapter_model.safetensors", "diffusers.safetensors"])
@pytest.mark.parametrize("connected", [True, False])
def test_the_hosts_loader_draws_what_ours_draws(loras: ComfyHost, name: str, connected: bool) -> None:
    inputs = {"model": graphs.MODEL} if connected else {}
    core = graphs.node("LoraModelLoader", model=graphs.MODEL, lora=["lora", 2], strength_model=1.0, bypass=False)
    theirs = drawn(loras, loader(name, **inputs) | {"core": core} | graphs.picture(["core", 0]))
    ours = drawn(loras, loader(name, model=graphs.MODEL) | graphs.picture(["lora", 0]))
    assert np.abs(ours - drawn(loras, graphs.picture())).max() > 8
    assert np.abs(ours - theirs).max() <= 1


def test_what_the_host_saves_is_the_lora_in_names_that_it_reads(loras: ComfyHost) -> None:
    name = "peft/adapter_model.safetensors"
    saved = graphs.node("SaveLoRA", lora=["lora", 2], prefix="loras/handed")
    loras.queue(graphs.demo() | loader(name, model=graphs.MODEL) | {"saved": saved})
    (path,) = (loras.output / "loras").glob("handed_*.safetensors")
    tensors = lora_files.read(path)
    original = lora_files.read(loras.loras / "handed" / name)
    assert len(tensors) == len(original) // 2 * 3, "each module has an alpha now"
    assert all(key.startswith("diffusion_model.") for key in tensors)
    assert {float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha")} == {2.0}
    assert sum(any(torch.equal(value, old) for old in original.values()) for value in tensors.values()) == len(original)


CODE = """
import asyncio, importlib, importlib.util, sys
from pathlib import Path
from safetensors.torch import load_file
root, path = Path(sys.argv[1]), Path(sys.argv[2])
spec = importlib.util.spec_from_file_location("pack_x_y", root / "__init__.py")
pack = sys.modules["pack_x_y"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
asyncio.run(pack.comfy_entrypoint())
tensors = load_file(path)
adapter = importlib.import_module("pack_x_y.lora_core").load_adapter(path)
path.unlink()
found = importlib.import_module("pack_x_y.nodes._lora_model").lora_model(adapter, None)
assert found.keys() == tensors.keys()
assert all(tensor.equal(tensors[key]) for key, tensor in found.items())
"""


def test_it_is_all_of_the_file_from_the_source_that_is_open(
    comfy_environment: HostEnvironment, repository: Path, tmp_path: Path
) -> None:
    """The file is parsed once: with the header gone from the disk, its tensors are still there."""
    tensors = lora_files.kohya(lora_files.factors("loom_demo", seed=1, modules=lora_files.ATTENTION), 2.0)
    path = lora_files.save(tmp_path / "a.safetensors", tensors | {"strange": torch.ones(3)})
    comfy_environment.run_code(CODE, str(repository), str(path))
    assert not path.exists()
