"""Filling the caches before the first step."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ...io.ahead import Ahead
from ..config import DataSection
from ..denoiser import Denoiser
from ..events import Watcher
from .captions import plain_caption, possible_captions
from .encoding import Encoding, latents_facts
from .picture import Picture
from .pixels import view_pixels
from .planning import Plan
from .sample import View
from .views import center_view, possible_views

LATENTS, TEXT = "caching latents", "caching text"


def prepare(
    plan: Plan, rules: DataSection, encoding: Encoding, denoiser: Denoiser, watcher: Watcher, *, text: bool
) -> bool:
    """Encode all views and captions that can be kept and are not yet; False where the watcher cancelled."""
    denoiser.set_mode("encode")
    if plan.views_are_few and rules.cache_latents and not _prepare_latents(plan, rules, encoding, denoiser, watcher):
        return False
    if text and plan.captions_are_few and rules.cache_text:
        return _prepare_text(plan, rules, encoding, denoiser, watcher)
    return True


def _prepare_latents(plan: Plan, rules: DataSection, encoding: Encoding, denoiser: Denoiser, watcher: Watcher) -> bool:
    wanted = _views(plan, rules)
    fingerprint = denoiser.vae_fingerprint
    missing = [
        (picture, view)
        for picture, view in wanted
        if not encoding.latents.has(latents_facts(picture, view, fingerprint))
    ]
    done = len(wanted) - len(missing)
    watcher.stage(LATENTS, done, len(wanted))
    with Ahead[Tensor](partial(view_pixels, picture, view) for picture, view in missing) as pixels:
        for (picture, view), ready in zip(missing, pixels, strict=True):
            if watcher.cancelled():
                return False
            encoding.latents_of(picture, view, denoiser, ready)
            done += 1
            watcher.stage(LATENTS, done, len(wanted))
    return True


def _views(plan: Plan, rules: DataSection) -> list[tuple[Picture, View]]:
    """Each once: copies of a picture share their latents."""
    found: dict[tuple[str, View], Picture] = {}
    for size, indices in [*plan.pictures_of.items(), *plan.priors_of.items()]:
        for index in indices:
            picture = plan.pictures[index]
            for view in possible_views(picture, size, rules) or ():
                found[picture.sha256, view] = picture
    for index in (*plan.held_out, *plan.train_subset):
        picture = plan.pictures[index]
        found[picture.sha256, center_view(picture, plan.size_of[index])] = picture
    return [(picture, view) for (_, view), picture in found.items()]


def _prepare_text(plan: Plan, rules: DataSection, encoding: Encoding, denoiser: Denoiser, watcher: Watcher) -> bool:
    captions = dict.fromkeys(
        caption
        for picture in plan.pictures
        for caption in (
            plain_caption(picture.captions, rules, prior=picture.prior),
            *(possible_captions(picture.captions, rules, prior=picture.prior) or ()),
        )
    )
    for done, caption in enumerate(captions):
        if watcher.cancelled():
            return False
        watcher.stage(TEXT, done, len(captions))
        encoding.text_of(caption, denoiser)
    watcher.stage(TEXT, len(captions), len(captions))
    return True
