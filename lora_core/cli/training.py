"""``loom train``: a LoRA from a folder of pictures, by the settings of a TOML file.

An interrupted run is gone on with by the same command. Under ``accelerate launch -m lora_core train ...`` each process
runs this; the main one speaks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import MissingExtraError, OutputExistsError
from . import DONE, Stopped
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..train.loop import TrainResult

Resume = Literal["auto", "never", "must"]

# Packages of the extra `train`, as they are imported.
PACKAGES = (
    *("PIL", "accelerate", "diffusers", "einops", "matplotlib", "peft", "pydantic", "pytorch_optimizer"),
    *("tensorboard", "tomli", "tomli_w", "transformers"),
)


def run(config: Path | None, overrides: Sequence[str], resume: Resume, json: bool) -> int:
    """Train, showing how it goes; report what was made."""
    with needs_packages():
        from ..train.config import load_config

        settings = load_config(config, overrides)  # before all that takes seconds to import
        from ..train.config.effective import scale_note
        from ..train.loop import train
        from .train_terminal import Interrupt, QuietWatcher, TerminalWatcher

        main = _is_main_process()
        if main and (note := scale_note(settings.network, settings.optimizer)):
            print(note, file=sys.stderr)
        interrupt = Interrupt()
        watcher = TerminalWatcher(interrupt) if main else QuietWatcher(interrupt)
        with watcher.showing() if isinstance(watcher, TerminalWatcher) else nullcontext(), interrupt.listening():
            result = train(settings, watcher=watcher, resume=resume)
    if main:
        _report(result, json)
    if not result.finished:
        raise Stopped(_where_it_stopped(result, settings.run.steps) if main else "")
    return DONE


def init(preset: str, out: Path | None, overrides: Sequence[str]) -> int:
    """Write a preset as a TOML file to start from; to standard output without a name."""
    with needs_packages():
        from ..train.config.starting import starting_toml

        text = starting_toml(preset, overrides)
    if out is None:
        print(text, end="")
        return DONE
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputExistsError(str(out), "Choose another name, or remove it.") from None
    note = next((line.removeprefix("## ") for line in text.splitlines() if line.startswith("## Alpha")), "")
    if note:
        print(note, file=sys.stderr)
    given = {text.partition("=")[0].strip() for text in overrides}
    lacking = " and ".join(name for name in ("model.base", "data.folder") if name not in given)
    print(f"{out}: {f'give {lacking}, then' if lacking else 'now'} `loom train {out}`", file=sys.stderr)
    return DONE


def list_presets(json: bool) -> int:
    """Each preset with what it is for."""
    with needs_packages():
        from ..train.config import PRESETS
    if json:
        print_json({name: {"title": preset.title, **preset.values} for name, preset in PRESETS.items()})
    else:
        print_table("Presets", [(name, preset.title) for name, preset in PRESETS.items()])
    return DONE


def complete_preset(incomplete: str) -> list[str]:
    """Names of presets, for the shell."""
    from ..train.config import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """``network.ra`` -> ``network.rank=``; after the ``=`` the words that a setting may be."""
    from ..train.config import PRESETS, settings

    name, equals, value = incomplete.partition("=")
    if not equals:
        return [f"{key}=" for key in settings() if key.startswith(name)]
    setting = settings().get(name)
    if setting is None:
        return []
    words = ("true", "false") if setting.kind == "true or false" else setting.choices
    words = tuple(PRESETS) if name == "preset" else words
    return [f"{name}={word}" for word in words if word.startswith(value)]


def _where_it_stopped(result: TrainResult, steps: int) -> str:
    saved = f"; saved {result.path} and the state" if result.path is not None else ""
    return f"stopped at step {result.steps} of {steps}{saved}; the same command goes on from there"


def _report(result: TrainResult, json: bool) -> None:
    facts = {"name": result.name, "steps": result.steps, "finished": result.finished, "loss": result.loss}
    if json:
        print_json({"path": str(result.path) if result.path else None, **facts, "report": result.report})
    elif result.finished:
        rows = [("file", str(result.path)), ("steps", str(result.steps)), ("loss", f"{result.loss:.4f}")]
        rows += [(name.replace("_", " "), str(value)) for name, value in result.report.items() if _is_plain(value)]
        print_table(result.name, rows)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _is_main_process() -> bool:
    """torch's launchers, and accelerate's through them, number processes in the environment."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def needs_packages() -> Generator[None, None, None]:
    """What the library lacks for training is an error that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise MissingExtraError(package, "train", "training") from None
