"""Pictures of the class, drawn by the base before training, for DreamBooth's prior preservation.

Source: Ruiz et al. 2022. Seeds follow from the place in the row, so an interrupted run goes on with the same pictures.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from ..errors import ConfigError
from ..io.atomic import atomic_file
from .config import DataSection
from .denoiser import Denoiser
from .events import Watcher
from .images import to_image
from .seeds import number

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
STEPS = 25
GUIDANCE = 7.5


def generate_prior(denoiser: Denoiser, data: DataSection, seed: int, watcher: Watcher) -> list[Path]:
    """Draw pictures of ``data.prior.caption`` into ``data.prior.folder`` until it has ``data.prior.generate``.

    Returns:
        the new ones; fewer than were missing where the watcher cancelled.

    Raises:
        ConfigError: folder or caption is missing.
    """
    section = data.prior
    faults = [f"{name} is empty: generate needs it" for name in ("folder", "caption") if not getattr(section, name)]
    if faults:
        raise ConfigError("data.prior", faults)
    folder = Path(section.folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}
    missing = section.generate - len(there)
    names = [name for i in range(section.generate) if (name := f"prior-{i:05d}.png") not in there]
    made: list[Path] = []
    for name in names[: max(0, missing)]:
        if watcher.cancelled():
            break
        watcher.stage("drawing pictures of the class", len(made), missing)
        width, height = (side // denoiser.size_step * denoiser.size_step for side in data.resolution)
        picture = denoiser.sample(
            section.caption,
            "",
            seed=number(seed, "prior", name),
            steps=STEPS,
            guidance=GUIDANCE,
            width=width,
            height=height,
        )
        path = folder / name
        buffer = BytesIO()
        to_image(picture).save(buffer, format="PNG")
        with atomic_file(path) as handle:
            handle.write(buffer.getbuffer())
        made.append(path)
    watcher.stage("drawing pictures of the class", len(made), max(missing, 0))
    return made
