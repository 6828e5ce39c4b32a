"""What all sections of a ``TrainConfig`` share: unknown keys are faults, and nothing changes after it was checked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the TOML file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, validate_default=True, allow_inf_nan=False
    )
