"""What a training tells the host while it runs: progress bar, preview, and events for the page.

Events are websocket messages of the type ``loom.train``, kind by kind. They go to all pages, since a training takes
the machine for long and whoever looks may see it: ``{"prompt_id", "node", "run", "lora", "kind", ...}``; ``run`` is its
name in ``GET /loom/runs``, ``lora`` that of the file in the host's list.

    stage      what, done, total                         work before and beside the steps
    progress   step, steps, loss, losses, rates, steps_per_second, seconds_left, memory
    validated  step, losses
    sampled    step, images [{filename, subfolder, type, prompt}]      for the host's /view
    saved      step, name                                of a LoRA, as the combos list it
    note, warning    text
    ended      finished, step                            step is null after an error
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy import model_management
from comfy.utils import ProgressBar
from PIL.Image import Image
from server import PromptServer

from ..lora_core.train.events import Progress, Sampled, Watcher
from ..lora_core.train.output import RunFolder
from . import _train_live, _train_preview
from ._train_words import in_words_of_the_node

EVENT = "loom.train"
# Seconds between two previews: each is a picture over the websocket.
_PREVIEWS = 1.0
# And between two events of one stage.
_STAGES = 0.2


class HostWatcher(Watcher):
    """Shows a run in the host, and cancels it by the host's button.

    Args:
        node: id in the graph.
        folder: of the run.
        name: of the LoRA in the host's list.
        images: path of a picture -> what the host's ``/view`` wants to know.
    """

    def __init__(self, node: str | None, folder: RunFolder, name: str, images: Any) -> None:
        self._node, self._folder, self._name, self._images = node, folder, name, images
        self._cancelled = False
        self._stage = ""
        self._bar: Any = None
        self._losses: list[tuple[int, float]] = []
        self._validation: list[tuple[int, float]] = []
        self._samples: Sequence[Image] = ()
        self._shown = self._told = -math.inf
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def stage(self, what: str, done: int, total: int) -> None:
        if what != self._stage or done == total or time.monotonic() - self._told > _STAGES:
            self._told = time.monotonic()
            self.send("stage", what=what, done=done, total=total)
        if what != self._stage:
            self._stage, self._bar = what, None
        self._show(done, total)

    def progress(self, progress: Progress) -> None:
        self._losses += progress.losses
        self.send(
            "progress",
            step=progress.step,
            steps=progress.steps,
            loss=_finite(progress.loss),
            losses=[[step, _finite(loss)] for step, loss in progress.losses],
            rates=dict(progress.rates),
            steps_per_second=progress.steps_per_second,
            seconds_left=_finite(progress.seconds_left),
            memory=progress.memory,
        )
        if self._stage != "training":
            self._stage, self._bar = "training", None
        preview = None
        if time.monotonic() - self._shown > _PREVIEWS or progress.step == progress.steps:
            self._shown = time.monotonic()
            preview = self._preview(progress)
        self._show(progress.step, progress.steps, preview)

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        if "validation" in losses:
            self._validation.append((step, losses["validation"]))
        self.send("validated", step=step, losses={name: _finite(value) for name, value in losses.items()})

    def sampled(self, sampled: Sampled) -> None:
        self._samples = sampled.pictures
        self._shown = -math.inf  # the next progress shows them
        images = [
            {**self._images(self._folder.sample(sampled.step, number)), "prompt": prompt}
            for number, prompt in enumerate(sampled.prompts)
        ]
        self.send("sampled", step=sampled.step, images=images)

    def saved(self, path: Path, step: int) -> None:
        self.send("saved", step=step, name=str(Path(self._name).parent / path.name))

    def warned(self, message: str) -> None:
        self.warnings.append(in_words_of_the_node(message))
        self.send("warning", text=self.warnings[-1])

    def noted(self, message: str) -> None:
        self.notes.append(in_words_of_the_node(message))
        self.send("note", text=self.notes[-1])

    def cancelled(self) -> bool:
        self._cancelled = self._cancelled or bool(model_management.processing_interrupted())
        return self._cancelled

    def send(self, kind: str, **data: object) -> None:
        """An event for all pages."""
        server = PromptServer.instance
        prompt = getattr(server, "last_prompt_id", None)
        run = self._name.replace("\\", "/").removesuffix(".safetensors")
        message = {"prompt_id": prompt, "node": self._node, "run": run, "lora": self._name, "kind": kind, **data}
        _train_live.tell(message)
        server.send_sync(EVENT, message)

    def _show(self, done: int, total: int, preview: Any = None) -> None:
        self._bar = self._bar or ProgressBar(max(1, total))
        try:
            self._bar.update_absolute(done, max(1, total), preview)
        except model_management.InterruptProcessingException:
            # The bar looks for the button too. The run ends where it is whole, and asks there.
            self._cancelled = True

    def _preview(self, progress: Progress) -> Any:
        left = "" if math.isinf(progress.seconds_left) else f", {_time(progress.seconds_left)} left"
        title = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}{left}"
        picture = _train_preview.draw(title, self._losses, self._validation, self._samples)
        return ("JPEG", picture, max(picture.size))


def _finite(value: float) -> float | None:
    """JSON has no word for the others."""
    return value if math.isfinite(value) else None


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
