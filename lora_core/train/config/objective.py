"""``[objective]``: what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class ObjectiveSection(Section):
    """Noise, timesteps, loss and its weights."""

    loss: Literal["l2", "l1", "huber", "smooth_l1"] = Field(
        default="l2", description="distance of prediction and target"
    )
    huber_delta: float = Field(default=0.1, gt=0, description="where huber and smooth_l1 turn from squares to lines")
    huber_schedule: Literal["constant", "snr", "exponential"] = Field(
        default="constant", description="how huber_delta changes with the timestep"
    )
    weighting: Literal["none", "min_snr", "soft_min_snr", "debiased"] = Field(
        default="none", description="weights of timesteps in the loss"
    )
    gamma: float = Field(default=5.0, gt=0, description="of min-SNR")

    timesteps: Literal["uniform", "stratified", "logit_normal", "mode", "sigmoid", "shift", "cubic"] = Field(
        default="uniform", description="how timesteps are drawn; stratified is uniform with one in each part of a batch"
    )
    timestep_mean: float = Field(default=0.0, description="of the logit-normal")
    timestep_std: float = Field(default=1.0, gt=0, description="of the logit-normal")
    timestep_range: tuple[Fraction, Fraction] = Field(
        default=(0.0, 1.0), description="part of the schedule that is trained"
    )
    shift: float = Field(default=1.0, gt=0, description="of `shift`, 3 for SD 3, about 3 for FLUX at 1024 px")

    noise_offset: float = Field(
        default=0.0, ge=0, description="one number a channel, added to the noise; 0.05 is usual"
    )
    noise_offset_random: bool = Field(default=False, description="the offset's strength is drawn between 0 and it")
    multires_noise: int = Field(default=0, ge=0, le=10, description="levels of pyramid noise; 0 for none")
    multires_discount: float = Field(
        default=0.3, gt=0, le=1, description="strength of each level over that of the finer one"
    )
    input_perturbation: float = Field(default=0.0, ge=0, description="noise on what the model sees, not on the target")
