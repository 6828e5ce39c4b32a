"""``[optimizer]``: how the parameters move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .section import Section

OptimizerName = Literal[
    "adamw", "adamw8bit", "prodigy", "lion", "lion8bit", "adafactor", "schedulefree_adamw", "came", "sgd"
]


class OptimizerSection(Section):
    """The optimizer, its schedule, and what keeps steps in bounds."""

    name: OptimizerName = Field(default="adamw", description="the 8-bit ones need bitsandbytes")
    learning_rate: float = Field(default=1e-4, gt=0, description="1 for prodigy")
    weight_decay: float = Field(default=0.01, ge=0, description="pull of the factors towards 0")
    betas: tuple[float, ...] | None = Field(
        default=None, description="two, three for came; the optimizer's own when left out, mostly 0.9 and 0.999"
    )
    eps: float | None = Field(default=None, gt=0, description="the optimizer's own when left out, mostly 1e-8")
    options: dict[str, bool | int | float | str] = Field(default={}, description="handed to the optimizer as they are")

    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"] = (
        Field(default="constant_with_warmup", description="of the learning rate")
    )
    warmup: int = Field(default=100, ge=0, description="steps; not more than a tenth of the run is used")
    cycles: int = Field(default=1, ge=1, description="of cosine_with_restarts")
    power: float = Field(default=1.0, gt=0, description="of polynomial")
    clip: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0 for no limit")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of an average of the weights that is saved; 0 for none"
    )
