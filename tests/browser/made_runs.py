"""Runs on disk for the page to show: curves of numbers and pictures out of noise, by the engine's own writer."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from lora_core.train.config import dump_config, parse_config
from lora_core.train.events import Progress, Sampled
from lora_core.train.output import FileWatcher, RunFolder
from lora_core.train.seeds import generator
from painted import noise

PICTURES = Path(__file__).parents[2] / "demo" / "data" / "high_contrast"
PROMPTS = ("ghost", "red heart", "sailboat")


def write_run(
    runs: Path,
    name: str,
    *,
    steps: int = 1500,
    done: int | None = None,
    low: float = 0.08,
    rank: int = 16,
    moments: Sequence[int] = (250, 500, 750, 1000, 1250, 1500),
    hours_ago: float = 1.0,
    seed: int = 0,
) -> Path:
    """A run of a style, in ``<runs>/<name>.run``.

    Args:
        done: finished steps, where it was stopped before its end.
        low: where its loss ends.
        moments: steps with samples.
    """
    done = steps if done is None else done
    config = parse_config(
        {
            "preset": "sd15-style",
            "model": {"base": "sd15.safetensors"},
            "data": {"folder": "/srv/pictures/high_contrast", "resolution": 512},
            "network": {"rank": rank},
            "run": {"steps": steps, "batch": 4},
            "samples": {"prompts": list(PROMPTS)},
            "output": {"folder": os.fspath(runs), "name": name, "plot": False},
        }
    )
    folder = RunFolder.of(config.output)
    watcher = FileWatcher(folder, config.output)
    folder.config.write_text(dump_config(config), encoding="utf-8")
    wild = torch.randn(done, generator=generator(seed, "losses")).tolist()
    losses = [(step, _loss(step, low) * (1 + 0.2 * wild[step - 1])) for step in range(1, done + 1)]
    for start in range(0, done, 10):
        batch = losses[start : start + 10]
        step = batch[-1][0]
        rate = 1e-4 * min(1.0, step / 100)
        watcher.progress(Progress(step, steps, batch[-1][1], batch, {"denoiser": rate}, 5.5, 0.0, 0))
        if step % 100 == 0:
            watcher.validated(step, {"validation": _loss(step, low * 1.15) + 2e-8 * step * step})
    for step in (one for one in moments if one <= done):
        pictures = [_picture(number, step / steps, seed) for number in range(len(PROMPTS))]
        watcher.sampled(Sampled(step, PROMPTS, pictures))
    watcher.close()
    (folder.state / f"step-{done:06d}").mkdir(parents=True)
    for path in (*folder.run.rglob("*"), folder.run):
        then = path.stat().st_mtime - hours_ago * 3600
        os.utime(path, (then, then))
    return folder.run


def _loss(step: int, low: float) -> float:
    return low + (0.22 - low) * math.exp(-step / 320)


def _picture(number: int, share: float, seed: int) -> Image.Image:
    """An emoji that comes out of noise."""
    with Image.open(PICTURES / f"{PROMPTS[number].replace(' ', '-')}.png") as opened:
        sharp = opened.convert("RGB").resize((192, 192), Image.Resampling.LANCZOS)
    return Image.blend(noise((192, 192), seed + number), sharp, min(1.0, 0.35 + 0.65 * share))
