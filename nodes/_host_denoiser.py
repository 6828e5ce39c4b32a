"""``HostDenoiser``: MODEL, CLIP and VAE of a graph as the engine's ``Denoiser``.

What the host can sample can be trained, on the weights that it has loaded: the host's own modules get the adapters,
its own ``extra_conds`` makes the conditions, its own memory management loads and unloads. LoRAs that the graph put on
the MODEL are part of the frozen weights. ``close`` gives everything back as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ..lora_core.architectures import Architecture
from ..lora_core.errors import ConfigError
from ..lora_core.train.borrowed import weights_digest
from ..lora_core.train.conditions import joined, rows_of
from ..lora_core.train.denoiser import Conditions, Latents
from ..lora_core.train.moving import move
from ..lora_core.train.noise_schedule import NoiseSchedule
from ..lora_core.types import DENOISER
from . import _host_conditions, _host_sampling, _host_text, _host_vae
from ._bridge import read_model
from ._host_cancel import cancellable
from ._host_loading import Holding
from ._host_models import check_model, has_guidance, is_dynamic, own, own_clip, patches_digest
from ._host_schedule import HostSchedule, Plain, host_schedule

# What models that were distilled with a guidance are told in training: the prediction of the prompt alone.
TRAINED_GUIDANCE = 1.0
# What checkpoints may lack: the host then leaves what happened to be in memory, where it is not used.
_UNSET = ("position_ids", "logit_scale", "text_projection.weight")
# Of a text encoder that adapters go into; the others are language models that are not trained with pictures.
_CLIP = "text_model."


class HostDenoiser:
    """See ``Denoiser`` for what each method does.

    Attributes:
        base: where the weights are from, for the metadata: a path, a name, or "".
        encoders: the text encoders that are trained, with their tokenizers, for new words.
    """

    def __init__(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        *,
        text_encoders: bool = False,
        dtype: torch.dtype | None = None,
        checkpointing: bool = False,
        base: str = "",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model, clip, vae: of the graph.
            text_encoders: whether these are trained, or learn new words.
            dtype: what the model computes in; None for what the host chose.
            checkpointing: less memory, more time.
            base: see the class.

        Raises:
            ConfigError: one of the three cannot be trained, or they do not belong together.
        """
        host = read_model(model, clip)
        assert host is not None  # a MODEL is connected
        check_model(model)
        _host_text.check_clip(clip)
        self.base = base
        self.architecture: Architecture = host.architecture
        self._model, self._clip, self._vae = own(model, "MODEL"), own_clip(clip, text_encoders), vae
        self._latents = self._model.get_model_object("latent_format")
        _host_vae.check_vae(vae, self._latents)
        self._sampling: HostSchedule = host_schedule(self._model.get_model_object("model_sampling"))
        self._model.add_object_patch("model_sampling", Plain(self._sampling.sampling))
        if dtype is not None and dtype != self._model.model.get_dtype_inference():
            self._model.set_model_compute_dtype(dtype)
        self._is_distilled = has_guidance(self._model.model)
        self._device: torch.device = self._model.load_device
        self.encoders = self._encoders() if text_encoders else []
        self._parts: dict[str, nn.Module] = {DENOISER: self._model.model.diffusion_model}
        self._parts |= {encoder.component: encoder.model for encoder in self.encoders}
        patchers = [self._model, *([self._clip.patcher] if text_encoders else [])]
        self._holding = Holding(patchers, self._parts, checkpointing)

    @property
    def schedule(self) -> NoiseSchedule:
        return self._sampling.schedule

    @property
    def device(self) -> torch.device:
        """Where the host computes."""
        return self._device

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        self._holding.hold()
        return self._parts

    @cached_property
    def latent_step(self) -> int:
        return _host_vae.pixels_a_latent(self._vae)

    @cached_property
    def size_step(self) -> int:
        patch = getattr(self._model.model.diffusion_model, "patch_size", 1)
        sides = patch if isinstance(patch, (tuple, list)) else (patch,)
        return self.latent_step * max(1, int(sides[-1]))

    @cached_property
    def vae_fingerprint(self) -> str:
        how = f"{type(self._latents).__name__} {type(self._vae.first_stage_model).__name__} {self._vae.vae_dtype}"
        scale = [float(self._latents.process_in(torch.full(self._one_latent, value)).sum()) for value in (0.0, 1.0)]
        return f"{weights_digest({'vae': self._vae.first_stage_model})} {how} {scale}"

    @cached_property
    def text_fingerprint(self) -> str:
        self._holding.lend()
        with torch.inference_mode(), cancellable():
            self._clip.load_model()  # with the graph's LoRAs in its weights
        stage = self._clip.cond_stage_model
        tokenizer = getattr(self._clip, "tokenizer_options", {})
        options = f"{type(stage).__name__} {self._clip.layer_idx} {sorted(tokenizer.items())}"
        if is_dynamic(self._clip.patcher):  # then these are not in the weights
            options += f" {patches_digest(self._clip.patcher.patches)}"
        return f"{weights_digest({'text': stage}, _UNSET)} {options}"

    def path_of(self, component: str, path: str) -> str | None:
        own = self.architecture.component(component)
        return path if own is not None and path in own.modules else None

    def encode_pictures(self, pixels: Tensor) -> Latents:
        self._holding.lend()
        return _host_vae.encode(self._vae, self._latents, pixels)

    def encode_text(self, captions: Sequence[str]) -> Conditions:
        if self.encoders:  # with what they have learned
            self._holding.hold()
            return joined(_host_text.encode_held(self._clip, captions))
        self._holding.lend()
        return joined(_host_text.encode(self._clip, captions))

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions, sizes: Tensor) -> Tensor:
        guidance = TRAINED_GUIDANCE if self._is_distilled else None
        return self._ask(noisy, self._sampling.told(timesteps), conditions, sizes, guidance)

    @torch.no_grad()
    def sample(
        self, prompt: str, negative: str, *, seed: int, steps: int, guidance: float, width: int, height: int
    ) -> Tensor:
        if width % self.size_step or height % self.size_step:
            fault = f"{width}x{height} pixels: width and height must be multiples of {self.size_step}"
            raise ConfigError("samples", [fault])
        wanted = self.encode_text([prompt])
        unwanted = None if self._is_distilled or guidance == 1 else self.encode_text([negative])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        shape = (1, self._latents.latent_channels, height // self.latent_step, width // self.latent_step)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self._device)

        def ask(noisy: Tensor, times: Tensor) -> tuple[Tensor, Tensor | None]:
            told = partial(self._ask, noisy, times, sizes=sizes, guidance=guidance if self._is_distilled else None)
            return told(wanted), None if unwanted is None else told(unwanted)

        latents = _host_sampling.draw(self._sampling.sampling, noise, steps, guidance, ask)
        self._holding.lend()
        return _host_vae.decode(self._vae, self._latents, self._with_time(latents))

    def set_mode(self, mode: str) -> None:
        """``"encode"``: the host loads VAE and text encoders as it likes; ``"train"``: what is trained alone."""
        if mode == "train":
            self._holding.hold()
        else:
            self._holding.lend()

    def close(self) -> None:
        """MODEL, CLIP and VAE as they came."""
        self._holding.close()

    def _ask(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, sizes: Tensor, guidance: float | None
    ) -> Tensor:
        """What the model gives back for noisy pictures in its own units."""
        self._holding.hold()
        model = self._model.model

        def one_pass(noisy: Tensor, times: Tensor, given: dict[str, Any]) -> Tensor:
            options = {"optimized_attention_override": _attention, "cond_or_uncond": [0] * len(noisy), "sigmas": times}
            return model.apply_model(noisy, times, transformer_options=options, **given)

        with cancellable():
            made = _host_conditions.run(
                model,
                rows_of(conditions),
                sizes.cpu(),
                self._with_time(noisy),
                move(times, noisy.device),
                guidance,
                one_pass,
            )
        return made.reshape(noisy.shape).to(noisy.dtype)

    def _with_time(self, latents: Tensor) -> Tensor:
        """(b, channels, h, w) as a film of one picture, where the model is one of films."""
        return latents.unsqueeze(2) if getattr(self._latents, "latent_dimensions", 2) == 3 else latents

    @property
    def _one_latent(self) -> tuple[int, ...]:
        return tuple(self._with_time(torch.empty(1, self._latents.latent_channels, 1, 1)).shape)

    def _encoders(self) -> list[_host_text.HostEncoder]:
        """The CLIPs."""
        found: list[_host_text.HostEncoder] = []
        for component in self.architecture.components[1:]:
            place = component.host_prefix.rstrip(".")
            try:
                module = self._clip.cond_stage_model.get_submodule(place)
            except AttributeError:
                continue
            if any(path.startswith(_CLIP) for path in component.modules):
                words = _host_text.own_words(self._clip, component.encoder)
                found.append(_host_text.HostEncoder(component.name, module, words))
        if not found:
            raise ConfigError("text_encoder.train", ["the connected CLIP has no text encoder that can be trained"])
        return found


def _attention(chosen: Any, *arguments: Any, **named: Any) -> Tensor:
    """torch's own, in the place of the host's choice: some of these have no gradient."""
    return attention_pytorch(*arguments, **named)
