"""diffusers' sampler for straight flows, in the pipelines of Stable Diffusion.

Those pipelines ask a scheduler to scale the model's input and the first noise, which flows do not need and the flow
scheduler therefore does not offer.
"""

from __future__ import annotations

from typing import Any

from .libraries import library


def flow_sampler(shift: float) -> Any:
    """``FlowMatchEulerDiscreteScheduler`` with both, as the identity."""
    base: Any = library("diffusers").FlowMatchEulerDiscreteScheduler

    class FlowSampler(base):
        init_noise_sigma = 1.0

        def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
            return sample

    return FlowSampler(shift=shift)
