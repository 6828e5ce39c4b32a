"""Our contender of `train.py`: `train()` itself, which takes steps as long as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _train_cases import CASES, settings

from lora_core.train.data.preparing import TEXT
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Watcher
from lora_core.train.loop import train
from lora_core.types import DENOISER


class Turned(Watcher):
    """The loop asks its watcher before each step whether to end, and while it fills caches.

    Args:
        cached: whether caches are filled before the steps; captions are the last.
    """

    def __init__(self, more: Callable[[], bool], cached: bool) -> None:
        self.more, self.preparing = more, cached

    def stage(self, what: str, done: int, total: int) -> None:
        if what == TEXT and done == total:
            self.preparing = False

    def cancelled(self) -> bool:
        return not self.preparing and not self.more()


def take_turns(
    job: Mapping[str, Any],
    more: Callable[[], bool],
    *,
    copied: bool = False,
    compiled: bool = False,
    graphs: bool = False,
) -> None:
    """Steps as long as ``more`` says so.

    Args:
        copied: the reference's settings; by default latents and text are cached.
        compiled: with the engine's own setting, which is torch.compile as it comes.
        graphs: each shape recorded as a CUDA graph, which the engine has no setting for.
    """
    case, device, folder = CASES[job["case"]], job["device"], Path(job["folder"])
    base, pictures = Path(job["base"]), Path(job["pictures"])
    config = settings(
        case,
        base,
        pictures,
        folder,
        device=device,
        precision=job["precision"],
        copied=copied,
        run={"compile": compiled},
    )
    denoiser = None
    if graphs:
        denoiser = DiffusersDenoiser.load(config.model, device=device)
        module: Any = denoiser.parts[DENOISER]
        module.compile(mode="reduce-overhead")
    train(config, watcher=Turned(more, cached=not copied), resume="never", denoiser=denoiser)
