"""``DiffusersDenoiser``."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...architectures import Architecture
from ...types import DENOISER
from ..config import ModelSection
from ..denoiser import Conditions, Latents
from ..noise_schedule import NoiseSchedule
from . import sampling, text
from .family import architecture_of
from .fingerprints import fingerprint, vocabulary_digest
from .load import load_parts
from .parts import Parts
from .schedules import noise_schedule, sampler


class DiffusersDenoiser:
    """A UNet of Stable Diffusion with its VAE and text encoders; see ``Denoiser`` for what each method does.

    Attributes:
        encoders: the text encoders with their tokenizers.
    """

    def __init__(self, loaded: Parts, model: ModelSection, architecture: Architecture, device: torch.device) -> None:
        self._loaded, self._model, self._device = loaded, model, device
        self.architecture = architecture
        self.encoders = loaded.encoders
        self.schedule: NoiseSchedule = noise_schedule(loaded.scheduler, model)
        self.latent_step: int = 2 ** (len(loaded.vae.config.block_out_channels) - 1)
        self.size_step: int = self.latent_step
        self.vae_fingerprint: str = fingerprint({"vae": loaded.vae}, _settings(loaded.vae))
        self.text_fingerprint: str = fingerprint(
            {encoder.component: encoder.model for encoder in self.encoders},
            {
                "clip_skip": model.clip_skip,
                "sdxl": loaded.is_sdxl,
                "words": [vocabulary_digest(encoder.tokenizer) for encoder in self.encoders],
                "models": [_settings(encoder.model) for encoder in self.encoders],
            },
        )

    @classmethod
    def load(
        cls,
        model: ModelSection,
        *,
        device: torch.device | str = "cpu",
        checkpointing: bool = False,
        channels_last: bool = False,
        attention: str = "auto",
        architecture: Architecture | None = None,
    ) -> DiffusersDenoiser:
        """Load a base; without network where everything is local.

        Args:
            model: which, and how it is held.
            checkpointing: compute activations again for the gradient: less memory, more time.
            channels_last: memory layout of the UNet and the VAE.
            attention: ``"auto"`` and ``"sdpa"`` are torch's fused attention, ``"sliced"`` needs less memory.
            architecture: of a base that is of no known family.

        Raises:
            ConfigError: there is no such model, or it cannot be trained with these settings.
            CorruptFileError: a file of it cannot be read.
            UnknownCheckpointError: it is of no known family.
        """
        device = torch.device(device)
        loaded = load_parts(model, architecture)
        text.check_vocabulary(loaded.encoders, loaded.label)
        text.check_clip_skip(loaded.encoders, model.clip_skip, loaded.is_sdxl)
        denoiser = cls(loaded, model, architecture or architecture_of(loaded), device)
        if channels_last:
            loaded.unet.to(memory_format=torch.channels_last)
            loaded.vae.to(memory_format=torch.channels_last)
        if checkpointing:
            _checkpoint(loaded)
        if attention == "sliced":
            loaded.unet.set_attention_slice("auto")
        for module in denoiser.parts.values():
            module.to(device)
        return denoiser

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        return {DENOISER: self._loaded.unet} | {encoder.component: encoder.model for encoder in self.encoders}

    def path_of(self, component: str, path: str) -> str | None:
        own = self.architecture.component(component)
        location = own.diffusers.get(path) if own else None
        return location.path if location else None

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor) -> Latents:
        vae: Any = self._loaded.vae
        vae.to(self._device)
        with torch.autocast(self._device.type, enabled=False):
            found: Any = vae.encode(pixels.to(self._device, torch.float32)).latent_dist
        shift, scale = _shift_and_scale(vae, found.mean)
        return Latents((found.mean - shift) * scale, found.std * scale)

    def encode_text(self, captions: Sequence[str]) -> Conditions:
        for encoder in self.encoders:
            encoder.model.to(self._device)
        trained = any(p.requires_grad for encoder in self.encoders for p in encoder.model.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return text.encode(self.encoders, captions, self._model.clip_skip, self._loaded.is_sdxl)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        unet: Any = self._loaded.unet
        dtype: torch.dtype = unet.dtype
        more: dict[str, Any] = {}
        if self._loaded.is_sdxl:
            more["added_cond_kwargs"] = {
                "text_embeds": conditions["pooled"].to(noisy.device, dtype),
                "time_ids": sizes.to(noisy.device, dtype),
            }
        states = conditions["text"].to(noisy.device, dtype)
        prediction: Tensor = unet(noisy.to(dtype), timesteps, encoder_hidden_states=states, return_dict=False, **more)[
            0
        ]
        return prediction.to(noisy.dtype)

    @torch.no_grad()
    def sample(
        self, prompt: str, negative: str, *, seed: int, steps: int, guidance: float, width: int, height: int
    ) -> Tensor:
        unet: Any = self._loaded.unet
        self._loaded.vae.to(self._device)
        step = self.latent_step
        noise = sampling.first_noise(unet.config.in_channels, height // step, width // step, seed)
        with self._evaluating():
            made = sampling.pipeline(self._loaded, sampler(self._loaded.scheduler, self._model))
            return sampling.draw_picture(
                made,
                self.encode_text([prompt, negative]),
                noise=noise.to(self._device, unet.dtype),
                steps=steps,
                guidance=guidance,
                width=width,
                height=height,
            )

    def set_mode(self, mode: str) -> None:
        """``"encode"``: VAE and text encoders on the device, dropout off; ``"train"``: dropout on, and what is not
        trained waits in the CPU's memory until it is asked for."""
        if mode not in ("encode", "train"):
            raise ValueError(f"mode {mode!r}: expected 'encode' or 'train'")
        training = mode == "train"
        for module in self.parts.values():
            module.train(training)
        trained = [m for m in self.parts.values() if any(p.requires_grad for p in m.parameters())]
        for module in (self._loaded.vae, *(encoder.model for encoder in self.encoders)):
            module.to("cpu" if training and not any(module is one for one in trained) else self._device)

    @contextmanager
    def _evaluating(self) -> Generator[None, None, None]:
        """Dropout off inside the block."""
        modes = [(module, module.training) for part in self.parts.values() for module in part.modules()]
        for part in self.parts.values():
            part.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _checkpoint(loaded: Parts) -> None:
    loaded.unet.enable_gradient_checkpointing()
    for encoder in loaded.encoders:
        # Reentrant checkpoints give no gradient where the input wants none, as embeddings that are frozen.
        encoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


# Settings that change what a VAE or a CLIP computes; others name versions and places.
_SETTINGS = (
    *("scaling_factor", "shift_factor", "latents_mean", "latents_std", "act_fn", "norm_num_groups"),
    *("hidden_act", "layer_norm_eps", "num_attention_heads"),
)


def _settings(model: Any) -> dict[str, Any]:
    return {name: getattr(model.config, name, None) for name in _SETTINGS}


def _shift_and_scale(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """``(latent - shift) * scale`` is what the UNet works on; per channel where the VAE's settings say so."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
    shift, spread = (torch.tensor(values).view(1, -1, 1, 1).to(like) for values in (mean, std))
    return shift, config.scaling_factor / spread
