"""The steps of a run, and what is done between them: looks, validation, samples, files, states.

At a step where several are due: the loss is looked at, validation, samples, the file (whose thumbnail is the newest
sample), the state. Nothing is written before the losses up to it were found finite.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from .drawing import draw_samples
from .events import Watcher
from .learning import Learning
from .memory import forget, is_out_of_memory, spilled
from .meter import Meter
from .optimizers import averaged
from .output import SavedLora
from .pieces import Pieces
from .resuming import restore, snapshot
from .state import State, save_state
from .stepping import Stepper
from .stops import Cancelled, DivergedError, NotLearningError, OutOfMemoryError
from .validation import Validation, in_passes
from .writing import Writer, check_format

# Launchers kill their processes 30 seconds after an interrupt: how many of these a run may go on without asking.
PATIENCE = 5.0


class Run:
    """One run; ``go`` does it.

    Attributes:
        done: finished steps.
        loss: mean over the last steps that were looked at.
        path: of the last file that was written.
    """

    def __init__(self, pieces: Pieces, watcher: Watcher, state: State | None) -> None:
        self.pieces, self.watcher = pieces, watcher
        self.config, self.processes = pieces.config, pieces.processes
        self.start = self.done = state.step if state is not None else 0
        self.loss = float(state.facts["loss"]) if state is not None else float("nan")
        self.path: Path | None = None
        self.warnings: list[str] = []
        self.validated: dict[str, float] = {}
        self._saved: SavedLora | None = None
        self._state = state
        self._state_at = state.step if state is not None else -1
        self._prepared = False
        self._spilled = False
        self._ask_every = 1
        self._writer = Writer(pieces)
        if state is not None:
            self._writer.session, self._writer.started = int(state.facts["session"]), float(state.facts["started"])
        self.learning = Learning(pieces.groups, self.config.run.stuck_after)
        self.stepper = Stepper(pieces, self.learning)
        self.meter = Meter(pieces)
        self.validation = _validation(pieces)

    def go(self) -> bool:
        """All steps that are left; False where the watcher cancelled, after saving state and weights.

        Whatever else ends the run, a full disk or no memory for a sample, the steps that were good are kept.
        """
        try:
            return self._go()
        except Cancelled:
            self.pieces.optimizer.zero_grad(set_to_none=True)  # of the step that was not finished
            if self._prepared:
                self.pieces.denoiser.set_mode("train")  # it may have been in the middle of something else
                self._leave_off()
            return False
        except (DivergedError, NotLearningError):
            raise
        except Exception as error:
            kept = self._rescue()
            if is_out_of_memory(error):
                raise OutOfMemoryError(self.done, self.processes.device, self.config.run.batch, kept) from error
            raise

    def _go(self) -> bool:
        pieces, steps = self.pieces, self.config.run.steps
        forget(self.processes.device)
        if self._state is not None:
            restore(pieces, self._state)
            self._state = None
        self._introduce()
        if not self._prepare():
            return False
        self._prepared = True
        if self.done == 0:
            self._look_around(first=True)
        self.meter = Meter(pieces)  # its clock begins now
        if self.done < steps:
            self.watcher.stage("training", self.done, steps)  # the first look may be minutes away
        while self.done < steps:
            if self._is_cancelled():
                self._leave_off()
                return False
            self._step()
            if self._is_due(self.config.run.log_every):
                self._look()
            self._do_what_is_due()
        self._finish()
        return True

    def report(self) -> dict[str, object]:
        """For users, as JSON."""
        network, saved, data = self.pieces.network.report(), self._saved, self.pieces.data
        check = saved.check if saved is not None else None
        return {
            "trained": str(network),
            "parameters": network.trained + sum(row.numel() for row in self._rows()),
            "base_parameters": network.total,
            "pictures": len(data.pictures) - len(data.held_out),
            "epochs": round(self.done * self.pieces.pictures_a_step / max(1, data.epoch_draws), 2),
            "steps_per_second": round(self.meter.steps / self.meter.seconds, 3) if self.meter.steps else 0.0,
            "seconds": round(self.meter.seconds, 1),
            "memory_gib": round(self.meter.memory / 2**30, 2),
            "validation": self.validated,
            "checked_modules": check.modules if check is not None else 0,
            "rounding": check.worst if check is not None else 0.0,
            "files": [str(file) for file in saved.files] if saved is not None else [],
            "folder": str(self.pieces.folder.run),
            "warnings": list(self.warnings),
        }

    # Before the steps

    def _introduce(self) -> None:
        """What is trained; faults that the first save would find."""
        report = self.pieces.network.report()
        check_format(self.pieces)
        if self.start:
            self.watcher.noted(f"going on from step {self.start} of {self.config.run.steps}")
        self.watcher.noted(str(report))
        if report.nameless:
            shown = ", ".join(report.nameless[:3]) + (" ..." if len(report.nameless) > 3 else "")
            self._warn(f"no LoRA file can name {len(report.nameless)} of the modules, which are left out: {shown}")

    def _prepare(self) -> bool:
        """Fill the caches, one process before the others; False where the watcher cancelled."""
        pieces = self.pieces
        folder = Path(self.config.data.cache) if self.config.data.cache else pieces.folder.cache
        with self.processes.main_first():
            filled = pieces.data.prepare(pieces.denoiser, folder, self.watcher, text=pieces.text_is_fixed)
        if self.processes.any(not filled):
            return False
        self._warn_of_long_captions()
        pieces.denoiser.set_mode("train")
        pieces.network.train()
        return True

    def _warn_of_long_captions(self) -> None:
        cut = getattr(self.pieces.denoiser, "too_long", None)
        if cut is None:
            return
        captions = list(dict.fromkeys(text for picture in self.pieces.data.pictures for text in picture.captions))
        if long := list(cut(captions)):
            self._warn(
                f"{len(long)} of {len(captions)} captions are longer than the text encoder reads; it sees their first "
                f"75 tokens, as of {long[0][:60]!r}"
            )

    # The steps

    def _step(self) -> None:
        self.meter.add(self.stepper.take(self.done))
        self.done += 1

    def _look(self) -> None:
        """At the numbers of the steps since the last look; raises the hard stops."""
        progress = self.meter.look(self.done)
        if progress is None:
            return
        self.loss = progress.loss
        if self.processes.count > 1:
            speed = torch.tensor([progress.steps_per_second], device=self.processes.device)
            self._ask_every = asking_every(self.processes.gather(speed).min().item(), self.config.run.log_every)
        self.learning.check(last=self.done == self.config.run.steps)
        self.watcher.progress(progress)
        if not self._spilled and (warning := spilled(self.processes.device)):
            self._spilled = True
            self._warn(warning)

    def _do_what_is_due(self) -> None:
        """After a step that is not the last."""
        config = self.config
        if self.done == config.run.steps:
            return
        save = self._is_due(config.output.save_every)
        state = self._is_due(config.output.state_every or config.output.save_every)
        validate, draw = self._is_due(config.validation.every), self._is_due(config.samples.every)
        if not (save or state or validate or draw):
            return
        self._look()
        with self.meter.paused():
            if validate:
                self._validate()
            if draw:
                self._draw()
            if save:
                self._write(self.done)
                if self.processes.main:
                    self.pieces.folder.prune(config.output.keep, self.done)
            if state:
                self._save_state()

    def _is_due(self, every: int) -> bool:
        return bool(every) and self.done % every == 0

    def _is_cancelled(self) -> bool:
        """All processes have to agree, and asking each other waits for the device: not at every step."""
        if self.processes.count > 1 and self.done != self.start and not self._is_due(self._ask_every):
            return False
        return self.processes.any(self.watcher.cancelled())

    # Between and after the steps

    def _look_around(self, *, first: bool = False) -> None:
        """Validation and samples."""
        self._validate()
        if not first or self.config.samples.first:
            self._draw()

    def _validate(self) -> None:
        if self.validation is None:
            return
        if self.processes.main:
            self.watcher.stage("validating", 0, 1)
            self.pieces.network.train(False)
            with averaged(self.pieces.optimizer), self.pieces.averages():
                self.validated = self.validation.measure()
            self.pieces.network.train()
            self.watcher.stage("validating", 1, 1)
            self.watcher.validated(self.done, self.validated)
        self.processes.wait()

    def _draw(self) -> None:
        if not self.config.samples.prompts:
            return
        if self.processes.main:
            self.pieces.network.train(False)
            with averaged(self.pieces.optimizer), self.pieces.averages():
                sampled = draw_samples(self.pieces.denoiser, self.config, self.done, self.watcher)
            # A part that rests stays where the optimizer's numbers of it are; the next step sets the phase again.
            for parameter in self.pieces.parameters:
                parameter.requires_grad_(True)
            self.pieces.denoiser.set_mode("train")
            self.pieces.network.train()
            if sampled.pictures:
                self._writer.thumbnail = sampled.pictures[0]
                self.watcher.sampled(sampled)
        self.processes.wait()

    def _write(self, step: int | None, comment: str = "") -> None:
        """The LoRA of this moment; ``step``: for its name, None for the finished one."""
        path = self.pieces.folder.lora(step)
        if self.processes.main:
            self.watcher.stage("saving", 0, 1)
            loss = None if self.loss != self.loss else self.loss
            self._saved = self._writer.write(path, self.done, loss, comment)
            self.watcher.stage("saving", 1, 1)
            for warning in self._saved.warnings:
                self._warn(warning)
            self.watcher.saved(self._saved.path, self.done)
        self.path = path if self._saved is None else self._saved.path
        self.processes.wait()

    def _save_state(self, report: dict[str, object] | None = None) -> None:
        if self.processes.main:
            self._keep(report)
        self._state_at = self.done
        self.processes.wait()

    def _keep(self, report: dict[str, object] | None = None) -> None:
        """The state on disk; with ``report`` that of a finished run."""
        facts: dict[str, object] = {
            "loss": self.loss,
            "session": self._writer.session,
            "started": self._writer.started,
        }
        if report is not None and self._saved is not None:
            files = dict.fromkeys((self._saved.path, *self._saved.files))
            facts |= {"report": report, "files": [str(one.relative_to(self.pieces.folder.folder)) for one in files]}
        save_state(self.pieces.folder.state, snapshot(self.pieces, self.done, facts))

    def _leave_off(self) -> None:
        """Cancelled: what was learned is kept, and the next call goes on."""
        if self.done == self.start == self._state_at:
            return  # nothing was done since the state was written
        self._look()
        if self.done:
            self._write(self.done, f"stopped at step {self.done} of {self.config.run.steps}")
        self._save_state()

    def _finish(self) -> None:
        self._look()
        self._look_around()
        self._write(None)
        self._save_state(self.report())

    def _rescue(self) -> bool:
        """After an error: free what can be freed and keep the state of the last whole step; True where it is kept."""
        self.pieces.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.done == 0 or not self.stepper.whole:
            return False
        if self._state_at != self.done:
            if not self.processes.main or (self.processes.count > 1 and self.meter.pending):
                return False  # to look at losses takes the other processes, and they are somewhere else
            self._look()
            self._keep()
            self._state_at = self.done
        return True

    def _rows(self) -> list[torch.Tensor]:
        tokens = self.pieces.tokens
        return [parameter.detach() for parameter in tokens.parameters()] if tokens is not None else []

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self.watcher.warned(message)


def asking_every(speed: float, log_every: int) -> int:
    """Steps between two questions of several processes whether to stop; ``speed``: steps a second of the slowest."""
    return max(1, min(log_every, int(speed * PATIENCE)))


def _validation(pieces: Pieces) -> Validation | None:
    """None where nothing is wanted: nothing held out, no unrelated captions, no interval."""
    data, section = pieces.data, pieces.config.validation
    if not (data.held_out or section.prompts or section.every):
        return None
    size = pieces.config.run.batch
    sets = {"validation": data.held_out, "train": data.train_subset}
    return Validation(
        section,
        pieces.denoiser,
        pieces.processes,
        pieces.config.run.seed,
        {
            name: lambda samples=samples: [data.batch(0, own, pieces.denoiser) for own in in_passes(samples, size)]
            for name, samples in sets.items()
            if samples
        },
        pieces.network.disabled,
    )
