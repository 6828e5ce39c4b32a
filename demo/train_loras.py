"""Train the demo's LoRAs with the engine, by the settings in `demo/configs`.

    python -m demo.train_loras                # into demo/out/loras, gone on with where it was stopped
    python -m demo.train_loras --fresh --ship # from the start, and into demo/loras, which the pack carries

The same as `loom train demo/configs/style.toml`, for both of them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lora_core.cli.train_terminal import Interrupt, TerminalWatcher
from lora_core.train.config import TrainConfig, load_config
from lora_core.train.events import Watcher
from lora_core.train.loop import TrainResult, train

HERE = Path(__file__).resolve().parent
LORAS = HERE / "loras"
NAMES = ("style", "content")


def settings(name: str, folder: Path = LORAS) -> TrainConfig:
    """The settings of a LoRA, to be written to a folder."""
    return load_config(HERE / "configs" / f"{name}.toml", [f"output.folder={str(folder.resolve())!r}"])


def lora_file(name: str, folder: Path = LORAS) -> Path:
    """Where a LoRA is, or will be."""
    return folder / f"{settings(name).output.name}.safetensors"


def train_lora(name: str, folder: Path, watcher: Watcher, *, fresh: bool = False) -> TrainResult:
    """Train one LoRA into a folder, going on with what was interrupted there."""
    return train(settings(name, folder), watcher=watcher, resume="never" if fresh else "auto")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all when left out")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "loras")
    parser.add_argument("--fresh", action="store_true", help="from the start, whatever an earlier run left")
    parser.add_argument("--ship", action="store_true", help="copy the files into the pack's demo/loras")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no such LoRA: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    interrupt = Interrupt()
    watcher = TerminalWatcher(interrupt)
    with watcher.showing(), interrupt.listening():
        for name in args.names or NAMES:
            if not train_lora(name, args.out, watcher, fresh=args.fresh).finished:
                return 130
            if args.ship:
                shutil.copy2(lora_file(name, args.out), lora_file(name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
