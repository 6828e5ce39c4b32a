"""What a file's metadata and a run's state say of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ...io.hashes import sha256_of
from ..config import DataSection
from .captions import tags_of
from .picture import Picture
from .planning import Plan

# Settings that change where bytes come from or how fast, and no draw.
_NO_MATTER = {"folder", "cache", "cache_latents", "cache_text", "workers", "select", "text_column"}


def digest(pictures: Sequence[Picture], rules: DataSection, plan: Plan) -> str:
    """Of all that draws follow from, besides the seed: contents, not names."""
    whole = hashlib.sha256()
    settings = rules.model_dump(mode="json", exclude=_NO_MATTER | {"prior"})
    whole.update(json.dumps(settings).encode())
    held_out = set(plan.held_out)
    for index, picture in enumerate(pictures):
        if index in held_out:
            continue
        mask = sha256_of(picture.mask) if picture.mask is not None and rules.masks != "none" else ""
        draws = picture.repeats, picture.weight, picture.prior, plan.size_of[index]
        whole.update(json.dumps([picture.sha256, mask, picture.captions, draws]).encode())
    return whole.hexdigest()


def tag_frequency(pictures: Sequence[Picture], rules: DataSection) -> dict[str, dict[str, int]]:
    """folder -> tag -> captions that have it, as kohya's ``ss_tag_frequency``: in lower case, repeats not counted."""
    counts: dict[str, dict[str, int]] = {}
    for picture in pictures:
        tags = counts.setdefault(picture.group, {})
        for caption in picture.captions:
            for tag in tags_of(caption, rules.separator):
                tags[tag.lower()] = tags.get(tag.lower(), 0) + 1
    return counts


def bucket_info(pictures: Sequence[Picture], plan: Plan) -> dict[str, object]:
    """As kohya's ``ss_bucket_info``: size and count of each bucket, and how far pictures' proportions are off."""
    errors = [
        abs(pictures[index].size[0] / pictures[index].size[1] - size[0] / size[1])
        for size, indices in plan.pictures_of.items()
        for index in indices
    ]
    buckets = {
        str(number): {"resolution": list(size), "count": len(plan.pictures_of[size])}
        for number, size in enumerate(sorted(plan.pictures_of))
    }
    return {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)}
