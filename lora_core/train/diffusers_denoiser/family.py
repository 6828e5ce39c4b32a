"""The architecture of loaded parts, from the names and shapes of the UNet's parameters."""

from __future__ import annotations

from collections.abc import Iterator

from ...architectures import ARCHITECTURES, Architecture
from ...architectures.spec import parameter_name
from ...errors import ConfigError, UnknownCheckpointError
from ...types import DENOISER, Shape
from .parts import Parts


def architecture_of(parts: Parts) -> Architecture:
    """The family whose UNet has all of these parameters, with their shapes.

    Raises:
        UnknownCheckpointError: no family has them.
        ConfigError: a UNet that takes a picture or a mask beside the noise, which no caption can give.
    """
    inputs, latents = parts.unet.config.in_channels, parts.vae.config.latent_channels
    if inputs != latents:
        fault = (
            f"{parts.label} takes {inputs} channels, of which {latents} are noise: an inpainting or editing model. "
            f"Train on the model that it was made of; its LoRAs fit both"
        )
        raise ConfigError("model.base", [fault])
    shapes: dict[str, Shape] = {name: tuple(value.shape) for name, value in parts.unet.state_dict().items()}
    fitting = [(len(expected), row) for row, expected in _unets() if expected.items() <= shapes.items()]
    if fitting:
        # Distilled models have a layer more, which takes no part in training.
        return max(fitting, key=lambda found: found[0])[1]
    hint = "Its UNet has other names or shapes than SD 1, SD 2 and SDXL: give a pipeline of one of these."
    raise UnknownCheckpointError(parts.label, next(iter(shapes), ""), [row.title for row in ARCHITECTURES], hint)


def _unets() -> Iterator[tuple[Architecture, dict[str, Shape]]]:
    """Families with a UNet, and its parameters in diffusers' names."""
    for row in ARCHITECTURES:
        component = row.component(DENOISER)
        if component is not None and component.diffusers_prefix == "unet":
            yield (
                row,
                {
                    parameter_name(module.diffusers, parameter): shape
                    for module in component.modules.values()
                    for parameter, shape in module.shapes.items()
                },
            )
