"""The LoRA paper's setting, from a folder whose ``metadata.jsonl`` has one caption for all pictures.

    python -m examples.one_caption                  # the UNet
    python -m examples.one_caption --text-encoder   # and the text encoder

Rank 4, alpha 4, a gaussian start, on to_q, to_k, to_v and to_out.0: the preset ``paper``. On Stable Diffusion 1.5 that
is 797,184 numbers beside 859,520,964 frozen ones, and a file of 3 MB; here it is the demo's small model. The same as

    loom train --set preset=paper --set model.base=demo/model --set data.folder=... --set data.resolution=64
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.pictures import BASE, DEMO, FOOD, HIGH_CONTRAST, copy_pictures
from lora_core.cli.train_terminal import Interrupt, TerminalWatcher
from lora_core.train.config import TrainConfig, parse_config
from lora_core.train.loop import train

CAPTION = "a black and white drawing"


def settings(pictures: Path, out: Path, steps: int = 300, *, text_encoder: bool = False) -> TrainConfig:
    """The preset with what this model and these pictures want otherwise."""
    values: dict[str, Any] = {
        "preset": "paper",
        "model": {"base": str(BASE)},
        "data": {"folder": str(pictures), "resolution": 64, "buckets": False},
        "network": {"rank": 4, "alpha": 4.0, "start": "gaussian", "targets": ["to_q", "to_k", "to_v", "to_out.0"]},
        "optimizer": {"learning_rate": 1e-3},  # ten times SD's: the model is small and the run is short
        "validation": {"every": steps, "train_subset": 20},  # before and after, with the same noise
        "run": {"steps": steps, "precision": "fp32", "log_every": max(1, steps // 10)},
        "output": {"folder": str(out), "name": "one_caption_and_text" if text_encoder else "one_caption"},
    }
    if text_encoder:
        rank = {"rank": 4, "alpha": 4.0, "targets": ["q_proj", "k_proj", "v_proj", "out_proj"]}
        values["text_encoder"] = {"train": True, "learning_rate": 1e-4, **rank}
    return parse_config(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text-encoder", action="store_true", help="train the text encoder too")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=DEMO / "out" / "examples")
    args = parser.parse_args()
    pictures = copy_pictures(args.out / "pictures", HIGH_CONTRAST, FOOD, count=20, caption=CAPTION)
    interrupt = Interrupt()
    watcher = TerminalWatcher(interrupt)
    config = settings(pictures, args.out, args.steps, text_encoder=args.text_encoder)
    with watcher.showing(), interrupt.listening():
        result = train(config, watcher=watcher)
    if result.path is not None:
        print(f"{result.report['trained']}; {result.path} has {result.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
