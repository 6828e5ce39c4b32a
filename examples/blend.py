"""Two trained LoRAs in one model, at 0.7 and 0.3: by this library, and by a stock diffusers pipeline.

    python -m examples.blend

One LoRA learns a style, animals in High-Contrast; the other one food in Flat, which the base has never seen. Blended,
they draw the same picture here and in diffusers, to the rounding of float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo.apply import stack_of, with_stack
from demo.pipeline import load_demo
from demo.sample import contact_sheet
from examples.pictures import BASE, DEMO, FLAT, FOOD, HIGH_CONTRAST, copy_pictures
from lora_core.cli.train_terminal import Interrupt, TerminalWatcher
from lora_core.train.config import TrainConfig, parse_config
from lora_core.train.events import Watcher
from lora_core.train.loop import train

STRENGTHS = {"style": 0.7, "content": 0.3}
PICTURES = {"style": (HIGH_CONTRAST, "Animals & Nature"), "content": (FLAT, FOOD)}
PROMPT = "hamburger"


def settings(name: str, out: Path, steps: int) -> TrainConfig:
    """The demo model's preset on the pictures of one LoRA."""
    style, group = PICTURES[name]
    return parse_config(
        {
            "preset": "loom_demo-style",
            "model": {"base": str(BASE)},
            "data": {"folder": str(copy_pictures(out / name, style, group))},
            "text_encoder": {"train": True, "learning_rate": 1e-3} if name == "content" else {},
            "run": {"steps": steps, "batch": 8},
            "output": {"folder": str(out), "name": name, "dtype": "fp32"},
        }
    )


def train_both(out: Path, steps: int, watcher: Watcher | None = None) -> dict[str, Path]:
    """The two files; what an earlier call finished is taken as it is."""
    files: dict[str, Path] = {}
    for name in STRENGTHS:
        result = train(settings(name, out, steps), watcher=watcher)
        if not result.finished or result.path is None:
            raise KeyboardInterrupt
        files[name] = result.path
    return files


def stock() -> Any:
    """A pipeline as anybody loads it."""
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(
        BASE, safety_checker=None, feature_extractor=None, local_files_only=True
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded.to(torch.float32)


def draw(pipeline: Any, prompt: str = PROMPT, steps: int = 20) -> Tensor:
    """(1, 3, 64, 64) in [-1, 1], always from the same noise."""
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = pipeline(prompt, latents=noise, num_inference_steps=steps, guidance_scale=3.0, output_type="pt").images
    return drawn * 2 - 1


def blended_by_us(files: Mapping[str, Path], strengths: Mapping[str, float]) -> Any:
    """A stock pipeline whose weights our stack has changed."""
    pipeline = stock()
    changed = with_stack(load_demo(), stack_of([(file, strengths[name]) for name, file in files.items()]))
    pipeline.unet, pipeline.text_encoder = changed.unet, changed.text_encoder
    return pipeline


def blended_by_diffusers(files: Mapping[str, Path], strengths: Mapping[str, float]) -> Any:
    """The same by ``load_lora_weights`` and ``set_adapters``."""
    pipeline = stock()
    for name, file in files.items():
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    pipeline.set_adapters(list(files), adapter_weights=[strengths[name] for name in files])
    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=120, help="of each LoRA")
    parser.add_argument("--out", type=Path, default=DEMO / "out" / "examples")
    args = parser.parse_args()
    interrupt = Interrupt()
    watcher = TerminalWatcher(interrupt)
    with watcher.showing(), interrupt.listening():
        files = train_both(args.out, args.steps, watcher)
    pictures = {
        "base": draw(stock()),
        "style": draw(blended_by_us(files, {"style": 1.0, "content": 0.0})),
        "content": draw(blended_by_us(files, {"style": 0.0, "content": 1.0})),
        "0.7 and 0.3, ours": draw(blended_by_us(files, STRENGTHS)),
        "in diffusers": draw(blended_by_diffusers(files, STRENGTHS)),
    }
    ours, theirs = list(pictures.values())[-2:]
    sheet = args.out / "blend.png"
    contact_sheet(list(pictures.items()), [PROMPT]).save(sheet)
    print(f"largest difference of the two: {(ours - theirs).abs().max().item() / 2:.1e} of 1; pictures: {sheet}")


if __name__ == "__main__":
    main()
