"""``Denoiser``: what the loop needs of a model, whoever loaded it.

``DiffusersDenoiser`` wraps the parts of a diffusers pipeline; a host wraps its own objects the same way. The loop
never asks what is behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from ..architectures import Architecture
from .noise_schedule import NoiseSchedule

# What the text encoders make of captions: name -> tensor with the batch first, ``{"text": (b, tokens, width)}``.
# The names are the denoiser's own; caches and batches keep them as they are. Rows of different lengths are joined and
# taken apart by ``conditions``.
Conditions = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Latents:
    """What the VAE makes of pictures, in the scale that the denoiser is trained on.

    Args:
        mean: (b, channels, height, width), float32.
        std: the same shape, for VAEs that give a distribution; None for those that do not.
    """

    mean: Tensor
    std: Tensor | None = None


class Denoiser(Protocol):
    """A model to adapt, with what turns pictures and captions into its inputs.

    Attributes:
        architecture: the family, whose module names and blocks the adapter is saved under.
        schedule: adds noise, says what is predicted and how loud the signal is.
        parts: component -> module that adapters go into, ``{"denoiser": unet, "text_encoder": clip}``. Module paths
            inside are the library's own; ``path_of`` tells the canonical ones.
        size_step: sides of pictures in pixels must be multiples of it.
        latent_step: pixels a latent, 8 for SD.
        vae_fingerprint, text_fingerprint: digests of the weights and settings that latents and conditions depend
            on (never names): caches are keyed by them.
    """

    @property
    def architecture(self) -> Architecture: ...

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def parts(self) -> Mapping[str, nn.Module]: ...

    @property
    def size_step(self) -> int: ...

    @property
    def latent_step(self) -> int: ...

    @property
    def vae_fingerprint(self) -> str: ...

    @property
    def text_fingerprint(self) -> str: ...

    def path_of(self, component: str, path: str) -> str | None:
        """Canonical path of the module at ``path`` of ``parts[component]``; None where the family has no such."""
        ...

    def encode_pictures(self, pixels: Tensor) -> Latents:
        """(b, 3, h, w) in [-1, 1] -> latents. Without gradients."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Conditions:
        """Captions -> conditions; with gradients where a text encoder has parameters that want them."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        """One pass of the denoiser.

        Args:
            noisy: (b, channels, height, width).
            timesteps: (b,), in the schedule's units.
            conditions: of ``encode_text``, one row a picture; on the CPU where they come from a cache.
            sizes: (b, 6) float32 on the CPU: original height and width, top and left of the crop, target height and
                width, in pixels, as SDXL's size conditions; others ignore it.

        Returns:
            the prediction, in the shape of ``noisy``.
        """
        ...

    def sample(
        self, prompt: str, negative: str, *, seed: int, steps: int, guidance: float, width: int, height: int
    ) -> Tensor:
        """A picture (3, height, width) in [0, 1] on the CPU, drawn with the adapters as they are now."""
        ...

    def set_mode(self, mode: str) -> None:
        """``"encode"``: VAE and text encoders on the device; ``"train"``: what training needs; the rest may leave."""
        ...
