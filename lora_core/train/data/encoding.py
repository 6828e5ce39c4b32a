"""Latents of views and conditions of captions, from a cache or from the denoiser.

One picture and one caption at a time, so that an entry follows from nothing but its own facts; a whole batch at a time
where draws have too many forms to keep.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import torch
from torch import Tensor

from ...errors import LoomError
from ..config import DataSection
from ..denoiser import Conditions, Denoiser, Latents
from ..events import Watcher
from .cache import Cache, Facts, Tensors
from .picture import Picture
from .pixels import view_mask, view_pixels
from .sample import View

# Bytes of entries in memory: 2,000 pictures of 1024 px for SDXL, 1,600 captions of it.
LATENTS_MEMORY = 1 << 30
TEXT_MEMORY = 1 << 30
MASK_MEMORY = 1 << 27
# Raise it when pixels of the same file and view change: entries made before are then not used.
_WAY = "1"


class LatentsError(LoomError, ValueError):
    """The VAE made nothing usable of a picture."""

    def __init__(self, picture: str, what: str) -> None:
        self.picture, self.what = picture, what
        super().__init__(
            f"{picture}: {what}. Use another VAE (model.vae) or model.dtype fp32 or bf16; where it is this picture "
            "alone, save it again or take it out."
        )


class Encoding:
    """The two caches, in memory until ``keep_in`` gives them a folder."""

    def __init__(self) -> None:
        self.keep_in(None, Watcher())

    def keep_in(self, folder: Path | None, watcher: Watcher, *, latents: bool = True, text: bool = True) -> None:
        self.latents = Cache(folder / "latents" if folder and latents else None, LATENTS_MEMORY, watcher.warned)
        self.masks = Cache(None, MASK_MEMORY, watcher.warned)
        self.text = Cache(folder / "text" if folder and text else None, TEXT_MEMORY, watcher.warned)

    def latents_of(self, picture: Picture, view: View, denoiser: Denoiser, pixels: Tensor | None = None) -> Tensors:
        """``{"mean": (channels, height, width), "std": same}`` float32; no std where the VAE gives none."""
        facts = latents_facts(picture, view, denoiser.vae_fingerprint)
        found = self.latents.get(facts)
        if found is None:
            pixels = view_pixels(picture, view) if pixels is None else pixels
            encoded = encode([picture.name], pixels[None], denoiser)
            found = {"mean": encoded.mean[0]} | ({} if encoded.std is None else {"std": encoded.std[0]})
            self.latents.put(facts, found)
        return found

    def mask_of(self, picture: Picture, view: View, rules: DataSection, latent_step: int) -> Tensor | None:
        """(1, height, width) as ``view_mask`` makes it; kept in memory. None without a mask."""
        facts = {"picture": f"{picture.name} {picture.sha256}", "view": json.dumps(astuple(view))}
        found = self.masks.get(facts)
        if found is None:
            mask = view_mask(picture, view, rules.masks, rules.mask_floor, latent_step)
            found = {} if mask is None else {"mask": mask}
            self.masks.put(facts, found)
        return found.get("mask")

    def text_of(self, caption: str, denoiser: Denoiser) -> Tensors:
        """Conditions of one caption, without the batch's dimension."""
        facts = text_facts(caption, denoiser.text_fingerprint)
        found = self.text.get(facts)
        if found is None:
            found = {name: tensor[0] for name, tensor in encode_captions([caption], denoiser).items()}
            self.text.put(facts, found)
        return found


def latents_facts(picture: Picture, view: View, fingerprint: str) -> Facts:
    """All that latents follow from."""
    return {"picture": picture.sha256, "vae": fingerprint, "view": json.dumps(astuple(view)), "way": _WAY}


def text_facts(caption: str, fingerprint: str) -> Facts:
    return {"caption": caption, "text": fingerprint, "way": _WAY}


@torch.no_grad()
def encode(names: Sequence[str], pixels: Tensor, denoiser: Denoiser) -> Latents:
    """Latents of pixels (b, 3, h, w), float32 on the CPU.

    Raises:
        LatentsError: NaN or infinity, or one number everywhere though the picture is not of one colour.
    """
    latents = denoiser.encode_pictures(pixels)
    mean = latents.mean.detach().float().cpu()
    std = None if latents.std is None else latents.std.detach().float().cpu()
    for row, name in enumerate(names):
        finite = torch.isfinite(mean[row]) & (True if std is None else torch.isfinite(std[row]))
        wrong = int((~finite).sum())
        if wrong:
            raise LatentsError(name, f"{wrong:,} of its {mean[row].numel():,} latents are NaN or infinite")
        if bool((mean[row] == mean[row].flatten()[0]).all()) and mean[row].numel() > mean.shape[1]:
            same_colour = bool((pixels[row] == pixels[row][:, :1, :1]).all())
            if not same_colour:
                raise LatentsError(name, f"all its latents are {float(mean[row].flatten()[0]):g}")
    return Latents(mean, std)


@torch.no_grad()
def encode_captions(captions: Sequence[str], denoiser: Denoiser) -> Conditions:
    """Conditions on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in denoiser.encode_text(captions).items()}
