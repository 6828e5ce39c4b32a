"""Pictures of the graph as a folder, so that the engine reads them like any other and a run can go on with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import folder_paths
import torch
from torch import Tensor

from ..lora_core.errors import ConfigError
from ..lora_core.io.atomic import atomic_file


def keep(images: Sequence[Tensor], captions: Sequence[str] | None) -> Path:
    """A folder of PNG files with ``metadata.jsonl``, in the host's output folder under ``loom/datasets``.

    Its name is a digest of what is in it: the same pictures and captions are written once, and files that were
    deleted since are written again.

    Args:
        images: the host's IMAGE batches, each (pictures, height, width, channels) in 0 to 1, of any sizes.
        captions: as the graph has them, see ``captions_for``; None without any.

    Raises:
        ConfigError: no pictures, values that are none, or captions that are not as many.
    """
    pictures = [_levels(picture) for batch in images for picture in batch]
    if not pictures:
        raise ConfigError("images", ["there are no pictures in the batch; connect at least one"])
    texts = captions_for(captions, len(pictures))
    digest = hashlib.sha256(json.dumps([list(each.shape) for each in pictures] + [texts]).encode())
    for each in pictures:
        digest.update(each.numpy().tobytes())
    folder = Path(folder_paths.get_output_directory()) / "loom" / "datasets" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for number, each in enumerate(pictures, 1):
        file = folder / f"{number:05}.png"
        rows.append({"file_name": file.name} | ({} if texts is None else {"text": texts[number - 1]}))
        if not file.is_file():
            _write(file, _png(each))
    # Last: with it the folder is whole.
    listing = folder / "metadata.jsonl"
    if not listing.is_file():
        _write(listing, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return folder


def captions_for(captions: Sequence[str] | None, count: int) -> list[str] | None:
    """A caption a picture.

    Args:
        captions: a list with one each, or one text with a line each; a single line is for all pictures.
        count: of the pictures.

    Raises:
        ConfigError: there are not as many.

    >>> captions_for(["a cat\\na dog"], 2), captions_for(["a cat"], 2), captions_for([""], 2)
    (['a cat', 'a dog'], ['a cat', 'a cat'], None)
    """
    if captions is None or not any(text.strip() for text in captions):
        return None
    lines = captions[0].rstrip("\r\n").splitlines() if len(captions) == 1 else list(captions)
    texts = [" ".join(line.split()) for line in lines]
    if len(texts) == 1:
        return texts * count
    if len(texts) != count:
        raise ConfigError(
            "captions", [f"there are {len(texts)} captions for {count} pictures; give one each, or one for all"]
        )
    return texts


def _levels(picture: Tensor) -> Tensor:
    """(height, width, channels) in 0 to 1 -> the same in whole numbers from 0 to 255, on the CPU."""
    picture = picture.detach().float().cpu()
    if not bool(torch.isfinite(picture).all()):
        raise ConfigError("images", ["a picture holds NaN or infinity; repair what makes it"])
    if picture.dim() != 3 or picture.shape[-1] not in (1, 3, 4):
        raise ConfigError(
            "images", [f"expected pictures of (height, width, 1, 3 or 4 channels), got {list(picture.shape)}"]
        )
    return (picture.clamp(0, 1) * 255).round().byte().contiguous()


def _png(levels: Tensor) -> bytes:
    from PIL import Image

    values = levels[..., 0] if levels.shape[-1] == 1 else levels
    buffer = BytesIO()
    Image.fromarray(values.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _write(file: Path, content: bytes) -> None:
    with atomic_file(file, size=len(content), overwrite=True) as target:
        target.write(content)
