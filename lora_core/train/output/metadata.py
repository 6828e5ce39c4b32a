"""The metadata of a trained LoRA: ``modelspec.*``, kohya's ``ss_*``, and the settings under ``loom.config``.

All values are texts. Hashes are filled in while the file is written (``saving``). No value holds a place on this
machine: files get passed on, and their folders name their owners.

Sources: Stability's ModelSpec 1.0.1; names of ``ss_*`` and the forms of their values as kohya-ss/sd-scripts writes
them (``kohya_metadata``).
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import PurePosixPath, PureWindowsPath

from ...architectures import ARCHITECTURES
from ...version import VERSION
from ..config import TrainConfig
from .facts import RunFacts
from .kohya_metadata import kohya_metadata
from .pictures import thumbnail

CONFIG_KEY = "loom.config"
VERSION_KEY = "loom.version"
LOSS_KEY = "loom.loss"
# Settings that are places; of each, the last part stays.
_PLACES = (
    ("model", "base"),
    ("model", "vae"),
    ("model", "pipeline"),
    ("data", "folder"),
    ("data", "cache"),
    ("data", "prior", "folder"),
    ("validation", "folder"),
    ("network", "continue_from"),
    ("output", "folder"),
    ("output", "runs"),
)


def metadata(config: TrainConfig, facts: RunFacts) -> dict[str, str]:
    """All of it but the hashes."""
    known = {CONFIG_KEY: json.dumps(published(config), sort_keys=True), VERSION_KEY: VERSION}
    if facts.loss is not None:
        known[LOSS_KEY] = f"{facts.loss:.6g}"
    return {"format": "pt", **modelspec(config, facts), **kohya_metadata(config, facts), **known}


def modelspec(config: TrainConfig, facts: RunFacts) -> dict[str, str]:
    """``modelspec.*``; what the user left out is left out."""
    row, output = ARCHITECTURES.get(facts.architecture), config.output
    width, height = config.data.resolution
    finished = datetime.fromtimestamp(facts.finished or time.time(), timezone.utc)
    phrase = ", ".join(dict.fromkeys(word for word in (config.data.trigger, *config.tokens.names) if word))
    start, end = config.objective.timestep_range
    fields = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{row.modelspec[0] if row.modelspec else row.name}/lora",
        "implementation": "diffusers",
        "implementation_version": f"lora-loom/{VERSION}",
        "title": output.title or output.name,
        "author": output.author,
        "description": output.description,
        "date": finished.isoformat(timespec="seconds"),
        "license": output.license,
        "tags": ", ".join(output.tags),
        "trigger_phrase": phrase,
        "resolution": f"{width}x{height}",
        # Of models that predict flow kohya's files say nothing here.
        "prediction_type": facts.prediction if facts.prediction != "flow" else "",
        "timestep_range": f"{round(start * 1000)},{round(end * 1000)}" if (start, end) != (0.0, 1.0) else "",
        "encoder_layer": str(config.model.clip_skip + 1) if config.model.clip_skip else "",
        "thumbnail": thumbnail(facts.thumbnail) if output.thumbnail and facts.thumbnail is not None else "",
    }
    return {f"modelspec.{name}": value for name, value in fields.items() if value}


def published(config: TrainConfig) -> dict[str, object]:
    """The settings as JSON, of places the last part alone."""
    settings = config.model_dump(mode="json")
    for *sections, name in _PLACES:
        section = settings
        for one in sections:
            section = section[one]
        section[name] = last_part(section[name])
    return settings


def last_part(place: str) -> str:
    """The name of a file or folder without the folders above it; a hub's ``owner/name`` stays.

    >>> last_part("/home/me/pictures/cat/"), last_part("C:\\\\models\\\\base.safetensors"), last_part("owner/name")
    ('cat', 'base.safetensors', 'owner/name')
    """
    if "\\" in place:
        return PureWindowsPath(place).name
    path = PurePosixPath(place)
    outside = path.is_absolute() or place.startswith(("~", ".")) or len(path.parts) != 2 or bool(path.suffix)
    return path.name if outside else place
