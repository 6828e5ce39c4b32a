"""Pivotal tuning: a new word for what a folder of pictures shows, and a LoRA that knows it.

    python -m examples.new_word

The pictures have no captions. A placeholder word, `<s1>`, gets an embedding that is trained first, alone; then the LoRA
is trained with the word as it is. The embedding is in the LoRA's file. It is one command, printed before it is run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from examples.pictures import BASE, DEMO, FLAT, FOOD, copy_pictures
from lora_core.cli import main as loom

WORD = "<s1>"


def command(pictures: Path, out: Path, steps: int = 400) -> list[str]:
    """What ``loom`` is given: the preset, three places, and what a small model and a short run want otherwise."""
    settings = {
        "preset": "pivotal",
        "model.base": BASE,
        "data.folder": pictures,
        "data.resolution": 64,
        "tokens.names": f'["{WORD}"]',
        "tokens.steps": steps // 2,
        "tokens.learning_rate": 5e-3,
        "network.targets": "attention+ff",
        "optimizer.learning_rate": 1e-3,
        "run.steps": steps,
        "run.precision": "fp32",
        "validation.every": steps,
        "samples.prompts": f'["a photo of {WORD}"]',
        "output.folder": out,
        "output.name": "new_word",
    }
    return ["train", *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=DEMO / "out" / "examples")
    args = parser.parse_args()
    pictures = copy_pictures(args.out / "no_captions", FLAT, FOOD, count=12, caption=None)
    arguments = command(pictures, args.out, args.steps)
    print(shlex.join(["loom", *arguments]), file=sys.stderr)
    return loom(arguments)


if __name__ == "__main__":
    sys.exit(main())
