"""LoRA files for the rows: small ones of two families, under names that people give."""

from __future__ import annotations

from pathlib import Path

import lora_files
from lora_core.architectures import ARCHITECTURES
from sparse_files import sparse_file

FEW = r"mid_block.*attn2\.to_(q|k|v)$"
SOME = r"attn2\.to_(q|k|v|out\.0)$"


def write_loras(folder: Path, *, seed: int = 0, tag: str = "") -> None:
    """LoRAs whose content and names no other folder has, where seed and tag differ.

    A style and its opposite, and others for SDXL; one for SD 1.5; one for the demo's model; one that is no LoRA.
    """
    wash = lora_files.factors("sdxl", seed=seed + 1, rank=16, modules=FEW)
    rain = lora_files.factors("sdxl", seed=seed + 2, rank=8, modules=FEW)
    film = lora_files.factors("sdxl", seed=seed + 3, rank=32, modules=FEW)
    old = lora_files.factors("sd15", seed=seed + 4, rank=4, modules=FEW)
    demo = lora_files.factors("loom_demo", seed=seed + 5, rank=4, modules=SOME)
    lora_files.save(folder / f"styles/ink_wash{tag}.safetensors", lora_files.kohya(wash, 16))
    lora_files.save(folder / f"styles/ink_wash_soft{tag}.safetensors", lora_files.kohya(wash, 8))
    lora_files.save(folder / f"light/rainy_night{tag}.safetensors", lora_files.peft(rain))
    lora_files.save(folder / f"film_grain{tag}.safetensors", lora_files.with_dora(lora_files.kohya(film, 32), 3))
    lora_files.save(folder / f"old/watercolor_sd15{tag}.safetensors", lora_files.kohya(old, 4))
    lora_files.save(folder / f"demo/contrast{tag}.safetensors", lora_files.kohya(demo, 4))
    (folder / "broken.safetensors").write_bytes(b"no tensors")


def write_checkpoint(path: Path, architecture: str) -> Path:
    """A whole model of a family by its header; its weights are a hole that takes no room."""
    shapes: dict[str, tuple[int, ...]] = {}
    for component in ARCHITECTURES.get(architecture).components:
        for module, its in component.modules.items():
            for parameter, shape in its.shapes.items():
                key, part, transposed = component.place(module, parameter)
                if part is not None:  # rows of a fused matrix: the last ones tell how many there are
                    shape = (max(part.start + part.length, shapes.get(key, (0,))[0]), *shape[1:])
                shapes[key] = tuple(shape[::-1] if transposed else shape)
    return sparse_file(path, shapes)
