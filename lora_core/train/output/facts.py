"""What a run knows of itself beside its settings, for the metadata of the files that it writes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL.Image import Image

from ...io import file_hashes
from ..noise_schedule import Prediction


class BaseFacts(NamedTuple):
    """The model that was trained on.

    Args:
        name: of the file or folder without its place on this machine; of a hub's repository as it is.
        sha256: of the file; "" for folders and repositories.
        old_hash: the 8 digits that A1111 once showed (``old_hash``).
    """

    name: str = ""
    sha256: str = ""
    old_hash: str = ""


_NO_MODEL = BaseFacts()


class PictureFolder(NamedTuple):
    """A folder of the data, as kohya's metadata has it.

    Args:
        pictures: in it, each counted once.
        repeats: of each.
        prior: whether they are of the class (prior preservation).
    """

    pictures: int
    repeats: int = 1
    prior: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of a run at the moment of a save.

    Args:
        architecture: name in ``ARCHITECTURES``.
        prediction: what the model predicts.
        base, vae: models that were trained on.
        step: finished steps.
        processes: that share a step.
        epoch_size: draws of an epoch, repeats and those of the class counted.
        held_out: pictures of the validation.
        folders: of the data, name -> what is in it.
        tag_frequency: folder -> tag -> captions with it.
        bucket_info: sizes of buckets.
        started, finished: seconds since 1970; ``finished`` 0 is the time of the save.
        loss: mean over the last steps, None before the first.
        session: number of the run, the same in all of its files.
        thumbnail: a picture for the metadata.
        comment: more than the user's comment, such as that the run was interrupted.
    """

    architecture: str
    prediction: Prediction = "epsilon"
    base: BaseFacts = _NO_MODEL
    vae: BaseFacts = _NO_MODEL
    step: int = 0
    processes: int = 1
    epoch_size: int = 0
    held_out: int = 0
    folders: Mapping[str, PictureFolder] = field(default_factory=dict[str, PictureFolder])
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    bucket_info: Mapping[str, object] = field(default_factory=dict[str, object])
    started: float = field(default_factory=time.time)
    finished: float = 0.0
    loss: float | None = None
    session: int = 0
    thumbnail: Image | None = None
    comment: str = ""

    @property
    def trained(self) -> int:
        """Pictures of an epoch without those of the class, repeats counted, as kohya counts."""
        return sum(one.pictures * one.repeats for one in self.folders.values() if not one.prior) or self.epoch_size

    @property
    def prior(self) -> int:
        return sum(one.pictures * one.repeats for one in self.folders.values() if one.prior)

    def epochs(self, steps: int, pictures_a_step: int) -> int:
        """Epochs that so many steps begin."""
        return -(-steps * pictures_a_step // self.epoch_size) if self.epoch_size else 0


def base_facts(base: str) -> BaseFacts:
    """Name and hashes of ``model.base``; reads the whole of a single file, once as long as it is not changed."""
    path = Path(base)
    if not base:
        return BaseFacts()
    if path.is_file():
        return BaseFacts(path.name, file_hashes(path).sha256, old_hash(_reader(path)))
    return BaseFacts(path.resolve().name if path.is_dir() else base)


def old_hash(read: Callable[[int, int], bytes]) -> str:
    """The first hash that A1111 and its neighbours knew files by: of 64 KiB at 1 MiB; "" for shorter files.

    Args:
        read: (start, length) -> bytes.
    """
    part = read(0x100000, 0x10000)
    return hashlib.sha256(part).hexdigest()[:8] if part else ""


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(start: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    return read
