"""``DiffusersDenoiser``."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...architectures import Architecture
from ...errors import ConfigError
from ...types import DENOISER
from ..config import ModelSection
from ..denoiser import Conditions, Latents
from ..moving import move
from ..noise_schedule import NoiseSchedule
from . import sampling, text, vae
from .family import architecture_of
from .fingerprints import fingerprint, vocabulary_digest
from .load import DTYPES, load_parts
from .parts import Parts
from .quantising import quantise
from .schedules import noise_schedule, sampler


class DiffusersDenoiser:
    """A UNet of Stable Diffusion with its VAE and text encoders; see ``Denoiser`` for what each method does.

    Attributes:
        encoders: the text encoders with their tokenizers.
    """

    def __init__(self, loaded: Parts, model: ModelSection, architecture: Architecture, device: torch.device) -> None:
        self._loaded, self._model, self._device = loaded, model, device
        self._dtype = DTYPES[model.dtype]
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
        device = torch.empty(0, device=device).device  # with its number, as tensors on it say of themselves
        loaded = load_parts(model, architecture)
        text.check_vocabulary(loaded.encoders, loaded.label)
        text.check_clip_skip(loaded.encoders, model.clip_skip, loaded.is_sdxl)
        denoiser = cls(loaded, model, architecture or architecture_of(loaded), device)
        if channels_last:
            loaded.unet.to(memory_format=torch.channels_last)
            loaded.vae.to(memory_format=torch.channels_last)
        if model.quantise != "none":
            quantise(loaded.unet, model.quantise)
        if checkpointing:
            _checkpoint(loaded)
        if attention == "sliced":
            loaded.unet.set_attention_slice("max")
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
        return vae.encode(self._bring(self._loaded.vae), pixels.to(self._device))

    def encode_text(self, captions: Sequence[str]) -> Conditions:
        models: list[nn.Module] = [encoder.model for encoder in self.encoders]
        for model in models:
            self._bring(model)
        trained = any(p.requires_grad for model in models for p in model.parameters())
        # What is frozen may come from a cache, which is filled in the weights' own precision.
        precision = nullcontext() if trained else torch.autocast(self._device.type, enabled=False)
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()), precision:
            return text.encode(self.encoders, captions, self._model.clip_skip, self._loaded.is_sdxl)

    def too_long(self, captions: Sequence[str]) -> list[str]:
        """Those of which the text encoders see the beginning only, 75 tokens."""
        return text.too_long(self.encoders[0].tokenizer, captions) if captions else []

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        device, more = noisy.device, dict[str, Any]()
        if self._loaded.is_sdxl:
            pooled = move(conditions["pooled"], device).to(self._dtype)
            more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": move(sizes, device).float()}
        states = move(conditions["text"], device).to(self._dtype)
        unet: Any = self._loaded.unet
        prediction: Tensor = unet(
            noisy.to(self._dtype), timesteps, encoder_hidden_states=states, return_dict=False, **more
        )[0]
        return prediction.to(noisy.dtype)

    @torch.no_grad()
    def sample(
        self, prompt: str, negative: str, *, seed: int, steps: int, guidance: float, width: int, height: int
    ) -> Tensor:
        """See ``Denoiser``; the first noise is drawn on the CPU, so that every device begins with the same."""
        step = self.latent_step
        if width % self.size_step or height % self.size_step:
            fault = f"{width}x{height} pixels: width and height must be multiples of {self.size_step}"
            raise ConfigError("samples", [fault])
        noise = sampling.first_noise(self._loaded.unet.config.in_channels, height // step, width // step, seed)
        made = sampling.pipeline(self._loaded, sampler(self._loaded.scheduler, self._model))
        with self._evaluating():
            latents = sampling.draw_latents(
                made,
                self.encode_text([prompt, negative]),
                noise=noise.to(self._device, self._dtype),
                steps=steps,
                guidance=guidance,
                width=width,
                height=height,
            )
            picture = vae.decode(self._bring(self._loaded.vae), latents)[0]
            return (picture / 2 + 0.5).clamp(0, 1).cpu()

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

    def _bring(self, module: nn.Module) -> nn.Module:
        """To the device, where it is not there."""
        return module if next(module.parameters()).device == self._device else module.to(self._device)

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
        # transformers renames it; the older name warns, and goes in version 6.
        names = ("activation_checkpointing", "gradient_checkpointing")
        name = next(name for name in names if hasattr(encoder.model, f"{name}_enable"))
        getattr(encoder.model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})


# Settings that change what a VAE or a CLIP computes; others name versions and places.
_SETTINGS = (
    *("scaling_factor", "shift_factor", "latents_mean", "latents_std", "act_fn", "norm_num_groups"),
    *("hidden_act", "layer_norm_eps", "num_attention_heads"),
)


def _settings(model: Any) -> dict[str, Any]:
    return {name: getattr(model.config, name, None) for name in _SETTINGS}
