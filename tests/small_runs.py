"""Whole runs that take a second or two: the demo's base at 64 px on a handful of painted pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lora_core.train.config import ModelSection, TrainConfig, parse_config
from lora_core.train.denoiser import Conditions, Denoiser
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.events import Progress, Watcher
from lora_core.train.loop import train
from lora_core.train.output.curves import read_rows
from lora_core.train.state import State, load_state, saved_steps
from painted import paint_some

Predict = Callable[[Tensor, Tensor, Conditions, Tensor], Tensor]

BASE = Path(__file__).parents[1] / "demo" / "model"
# Of all runs: adapters in some of the modules, no curves to draw, a look at the loss after each step, so that a watcher
# knows the step.
SMALL: dict[str, dict[str, Any]] = {
    "model": {"base": str(BASE)},
    "data": {"resolution": 64, "buckets": False},
    "network": {"rank": 2, "targets": r"regex:(mid_block|up_blocks\.0).*attn1\.to_"},
    "optimizer": {"learning_rate": 1e-3, "schedule": "constant"},
    "run": {"steps": 6, "batch": 2, "device": "cpu", "log_every": 1},
    "output": {"name": "ink", "dtype": "fp32", "tensorboard": False, "plot": False},
}


def settings(folder: Path, place: str = "out", **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of a run on the pictures in ``folder``, which is made where it is not there, with files in ``place``."""
    pictures = folder / "pictures"
    if not pictures.exists():
        paint_some(pictures, 4)
    where = {
        "data": {"folder": str(pictures), "cache": str(folder / "cache")},
        "output": {"folder": str(folder / place)},
    }
    names = dict.fromkeys((*SMALL, *sections))
    return {name: {**SMALL.get(name, {}), **where.get(name, {}), **sections.get(name, {})} for name in names}


def config(folder: Path, place: str = "out", **sections: Mapping[str, Any]) -> TrainConfig:
    return parse_config(settings(folder, place, **sections))


def load() -> DiffusersDenoiser:
    return DiffusersDenoiser.load(ModelSection(base=str(BASE)))


def lora_of(config: TrainConfig, step: int | None = None) -> Path:
    """The finished LoRA, or that of a step."""
    name = config.output.name + ("" if step is None else f"-{step:06d}")
    return Path(config.output.folder) / f"{name}.safetensors"


def tensors_of(config: TrainConfig, step: int | None = None) -> dict[str, Tensor]:
    """Of the LoRA, and of embeddings in files of their own."""
    lora = lora_of(config, step)
    files = sorted(lora.parent.glob(f"{lora.stem}.*safetensors"))
    assert files
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def states_of(config: TrainConfig) -> Path:
    return Path(config.output.folder) / f"{config.output.name}.run" / "state"


def last_state(config: TrainConfig) -> State:
    folder = states_of(config)
    return load_state(folder, saved_steps(folder)[-1])


def rows_of(config: TrainConfig) -> list[tuple[int, str, float]]:
    """Of loss.csv."""
    return read_rows(Path(config.output.folder) / f"{config.output.name}.run" / "loss.csv")


def losses_of(config: TrainConfig) -> dict[int, float]:
    return {step: value for step, name, value in rows_of(config) if name == "loss"}


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same to the last bit."""
    return [
        name
        for name in {**a, **b}
        if name not in a or name not in b or a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])
    ]


def traces(denoiser: Denoiser) -> dict[str, tuple[object, ...]]:
    """All that a run might leave in a model: names of modules, flags, compiled calls, hooks; weights as one number."""
    found: dict[str, tuple[object, ...]] = {}
    for component, part in denoiser.parts.items():
        for path, module in part.named_modules():
            name = f"{component}.{path}"
            compiled = module._compiled_call_impl is not None
            found[name] = type(module), module.training, compiled, len(module._forward_hooks)
        for path, parameter in part.named_parameters():
            bits = parameter.detach().view(torch.int32).sum(dtype=torch.int64).item()
            found[f"{component}.{path}"] = parameter.requires_grad, parameter.grad is None, bits
    return found


class CancelAt(Watcher):
    """Asks to stop once so many steps are done; it looks at every step's progress."""

    def __init__(self, step: int) -> None:
        self.step, self.done = step, 0

    def progress(self, progress: Progress) -> None:
        self.done = progress.step

    def cancelled(self) -> bool:
        return self.done >= self.step


class Wrapped:
    """A denoiser with one of its methods in other words."""

    def __init__(self, denoiser: Denoiser, **methods: Callable[..., Any]) -> None:
        self._denoiser, self._methods = denoiser, methods

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return self._methods[name]
        return getattr(self._denoiser, name)


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files below a folder; curves and settings of the run, which say what happened last, are left out."""
    last = ("loss.csv", "config.toml")
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name not in last}


def good_run(folder: Path, demo: DiffusersDenoiser, **sections: Any) -> dict[str, bytes]:
    """Two steps that all is well with: a LoRA and a state that later faults must not touch."""
    result = train(config(folder, **{**sections, "run": {"steps": 2}}), denoiser=demo)
    assert result.finished
    return contents(folder / "out")


def fails_at(demo: DiffusersDenoiser, call: int, error: Exception) -> Predict:
    calls = iter(range(1, 10**6))

    def predict(*arguments: Any) -> Tensor:
        if next(calls) == call:
            raise error
        return demo.predict(*arguments)

    return predict


class NotToBeUsed:
    """A model that tells which one it is, and nothing else."""

    def __init__(self, demo: DiffusersDenoiser) -> None:
        self.parts = demo.parts
        self.vae_fingerprint, self.text_fingerprint = demo.vae_fingerprint, demo.text_fingerprint

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked for its {name}")
