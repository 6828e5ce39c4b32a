"""The optimizers that can be named, each as its library has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...registry import Registry

Setting = bool | int | float | str | tuple[float | None, ...] | None

# torch has AdamW and SGD as one kernel for all parameters on these; elsewhere one kernel an operation.
FUSED = ("cpu", "cuda", "mps", "xpu")


def _nothing(device: torch.device) -> dict[str, Setting]:
    return {}


def _fused(device: torch.device) -> dict[str, Setting]:
    return {"fused": True} if device.type in FUSED else {"foreach": True}


def _adafactor(device: torch.device) -> dict[str, Setting]:
    # Rates relative to the size of a parameter would leave LoRA's up factors, which start at 0, where they are, and
    # a rate of its own making would ignore the one that is set.
    return {"scale_parameter": False, "relative_step": False}


def _prodigy(device: torch.device) -> dict[str, Setting]:
    # As its authors advise for diffusion models; the safeguard keeps small warm-up rates out of the estimate.
    return {"bias_correction": True, "safeguard_warmup": True}


@dataclass(frozen=True, slots=True)
class Library:
    """Where a class is imported from when it is used, and what to install where that is missing."""

    module: str
    package: str
    extra: str


TORCH = Library("torch.optim", "torch", "train")
PYTORCH_OPTIMIZER = Library("pytorch_optimizer", "pytorch-optimizer", "train")
BITSANDBYTES = Library("bitsandbytes.optim", "bitsandbytes", "quantise")


@dataclass(frozen=True, slots=True)
class OptimizerRow:
    """An optimizer of a library.

    Args:
        name, title: in settings, and in texts.
        betas: its own, where the settings leave them out; None where it has none.
        eps: the same; None where it does not take one number of that name.
        settings: what else it is made with; the settings' options come over these.
        one_rate: whether all groups must have the same learning rate.
    """

    name: str
    title: str
    library: Library
    class_name: str
    betas: tuple[float | None, ...] | None = (0.9, 0.999)
    eps: float | None = 1e-8
    settings: Callable[[torch.device], dict[str, Setting]] = _nothing
    one_rate: bool = False


OPTIMIZERS = Registry(
    "optimizer",
    (
        OptimizerRow("adamw", "AdamW", TORCH, "AdamW", settings=_fused),
        OptimizerRow("adamw8bit", "AdamW, 8-bit state", BITSANDBYTES, "AdamW8bit"),
        OptimizerRow("prodigy", "Prodigy", PYTORCH_OPTIMIZER, "Prodigy", settings=_prodigy, one_rate=True),
        OptimizerRow("lion", "Lion", PYTORCH_OPTIMIZER, "Lion", betas=(0.9, 0.99), eps=None),
        OptimizerRow("lion8bit", "Lion, 8-bit state", BITSANDBYTES, "Lion8bit", betas=(0.9, 0.99), eps=None),
        OptimizerRow(
            "adafactor",
            "Adafactor",
            PYTORCH_OPTIMIZER,
            "AdaFactor",
            betas=(None, 0.999),
            eps=None,
            settings=_adafactor,
        ),
        OptimizerRow("schedulefree_adamw", "Schedule-free AdamW", PYTORCH_OPTIMIZER, "ScheduleFreeAdamW"),
        OptimizerRow("came", "CAME", PYTORCH_OPTIMIZER, "CAME", betas=(0.9, 0.999, 0.9999), eps=None),
        OptimizerRow("sgd", "SGD", TORCH, "SGD", betas=None, eps=None, settings=_fused),
    ),
)
