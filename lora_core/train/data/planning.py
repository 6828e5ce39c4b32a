"""The plan of a run's data: which pictures are trained on, in which bucket each lies, which are held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ..config import DataSection, PriorSection, ValidationSection
from .buckets import bucket_of, bucket_sizes
from .captions import possible_captions
from .picture import Picture
from .reading import Reading, read_pictures
from .views import Size, covering, possible_views

# Share of a picture whose loss to the crop is worth a note.
_MUCH = 1 / 3


@dataclass(frozen=True, slots=True)
class Plan:
    """All that does not change during a run.

    Args:
        pictures: trained on, of the class, and held out.
        size_of: index -> bucket.
        pictures_of: bucket -> indices that are trained on, each as often as it repeats.
        priors_of: the same buckets -> indices of pictures of the class; empty without any.
        held_out, train_subset: indices for validation, the subset being trained on.
        views_are_few, captions_are_few: whether all forms of them can be kept.
        notes: for the user.
    """

    pictures: tuple[Picture, ...]
    size_of: Mapping[int, Size]
    pictures_of: Mapping[Size, Sequence[int]]
    priors_of: Mapping[Size, Sequence[int]]
    held_out: tuple[int, ...]
    train_subset: tuple[int, ...]
    views_are_few: bool
    captions_are_few: bool
    notes: tuple[str, ...]


def plan(
    data: DataSection,
    validation: ValidationSection,
    size_step: int,
    templates: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Plan:
    """Read the folders and sort what is in them. Raises as ``TrainingData.open`` does."""
    sizes = bucket_sizes(data, size_step)
    if not data.folder:
        raise ConfigError("settings", ["data.folder is not set: give the folder with the pictures"])
    folder = Path(data.folder)
    # One of these folders may lie in another, and each picture is for one thing.
    apart = [Path(one) for one in (data.prior.folder, validation.folder) if one]
    reading = read_pictures(folder, "data.folder", data, select=data.select, templates=templates, without=apart)
    if data.prior.folder:
        prior, others = Path(data.prior.folder), [folder, *apart]
        _join(
            reading,
            read_pictures(prior, "data.prior.folder", data, select=data.prior.select, prior=True, without=others),
        )
    trained = [picture for picture in reading.pictures if not picture.prior]
    priors = [picture for picture in reading.pictures if picture.prior]
    if not trained:
        raise ConfigError("data.folder", [f"all {len(priors)} pictures are of the class (reg), none is to be learned"])
    if not priors and data.prior != PriorSection():
        raise ConfigError(
            "data.prior",
            ["there are no pictures of the class: give their data.prior.folder, or a folder `reg` in data.folder"],
        )
    _check_words(trained, data, words)
    trained, held = _split(trained, validation.split)
    if validation.folder:
        own = read_pictures(
            Path(validation.folder), "validation.folder", data, select=validation.select, templates=templates
        )
        seen = {picture.sha256 for picture in trained}
        other = [picture for picture in own.pictures if picture.sha256 not in seen]
        if not other:
            raise ConfigError("validation.folder", [f"all {len(own.pictures)} pictures are trained on"])
        if len(other) < len(own.pictures):
            own.notes.append(f"validation: {len(own.pictures) - len(other)} pictures that are trained on are left out")
        held += other
        reading.notes += own.notes
    pictures = (*trained, *priors, *held)
    size_of = _sizes(pictures, len(trained), len(trained) + len(priors), sizes, data)
    _note_sizes(pictures[: len(trained)], size_of, sizes, data, reading.notes)
    _check_masks(trained, data, reading.notes)
    pictures_of, priors_of = _buckets(pictures, size_of, len(trained), len(priors))
    measured = held or validation.every or validation.prompts
    by_content = sorted(range(len(trained)), key=lambda index: (pictures[index].sha256, index))
    return Plan(
        pictures,
        size_of,
        pictures_of,
        priors_of,
        tuple(range(len(trained) + len(priors), len(pictures))),
        tuple(by_content[: validation.train_subset]) if measured else (),
        all(possible_views(pictures[index], size, data) is not None for size, index in _places(pictures_of, priors_of)),
        all(possible_captions(picture.captions, data, prior=picture.prior) is not None for picture in pictures),
        tuple(reading.notes),
    )


def _check_words(pictures: Sequence[Picture], data: DataSection, words: Sequence[str]) -> None:
    """Placeholder words that no caption has would never be trained."""
    captions = [data.trigger, *(caption for picture in pictures for caption in picture.captions)]
    if missing := [word for word in words if not any(word in caption for caption in captions)]:
        raise ConfigError(
            "tokens.names",
            [f"no caption has {', '.join(missing)}: write it in captions or data.trigger, or set tokens.templates"],
        )


def _join(reading: Reading, other: Reading) -> None:
    reading.pictures += other.pictures
    reading.notes += other.notes


def _split(pictures: Sequence[Picture], share: float) -> tuple[list[Picture], list[Picture]]:
    """Trained on and held out: the pictures whose digests come first, so that names and order do not matter.

    Copies of a picture go the same way. At least one picture is on each side.
    """
    if not share:
        return list(pictures), []
    digests = sorted({picture.sha256 for picture in pictures})
    if len(digests) < 2:
        raise ConfigError("validation.split", [f"{len(digests)} picture cannot be split: set it to 0, or add pictures"])
    held = set(digests[: min(max(1, round(share * len(digests))), len(digests) - 1)])
    return [each for each in pictures if each.sha256 not in held], [each for each in pictures if each.sha256 in held]


def _sizes(
    pictures: Sequence[Picture], trained: int, class_end: int, sizes: Sequence[Size], data: DataSection
) -> dict[int, Size]:
    """Bucket of each picture. Pictures of the class go to buckets that are trained on: both are in one batch."""
    own = {index: bucket_of(picture.size, sizes, data) for index, picture in enumerate(pictures)}
    used = sorted({own[index] for index in range(trained)})
    upscaled = data.model_copy(update={"upscale": True})
    for index in range(trained, class_end):
        own[index] = bucket_of(pictures[index].size, used, upscaled)
    return own


def _buckets(
    pictures: Sequence[Picture], size_of: Mapping[int, Size], trained: int, priors: int
) -> tuple[dict[Size, list[int]], dict[Size, list[int]]]:
    pictures_of: dict[Size, list[int]] = {}
    for index in range(trained):
        pictures_of.setdefault(size_of[index], []).extend([index] * pictures[index].repeats)
    if not priors:
        return pictures_of, {}
    of_class = range(trained, trained + priors)
    priors_of = {size: [index for index in of_class if size_of[index] == size] for size in pictures_of}
    # A bucket that no picture of the class is near is served by all of them, cut to its size.
    return pictures_of, {size: indices or list(of_class) for size, indices in priors_of.items()}


def _places(*buckets: Mapping[Size, Sequence[int]]) -> Iterator[tuple[Size, int]]:
    """Each picture with each size that it is trained at."""
    return ((size, index) for some in buckets for size, indices in some.items() for index in indices)


def _note_sizes(
    pictures: Sequence[Picture], size_of: Mapping[int, Size], sizes: Sequence[Size], data: DataSection, notes: list[str]
) -> None:
    resized = [covering(picture.size, size_of[index]) for index, picture in enumerate(pictures)]
    enlarged = sum(wide > picture.size[0] for (wide, _), picture in zip(resized, pictures, strict=True))
    if enlarged and not data.upscale:
        notes.append(f"{enlarged} of {len(pictures)} pictures are smaller than the size they are trained at: enlarged")
    cut = sum(
        wide * high * (1 - _MUCH) > size_of[index][0] * size_of[index][1] for index, (wide, high) in enumerate(resized)
    )
    if cut:
        notes.append(f"{cut} of {len(pictures)} pictures lose more than a third to the crop: see buckets, max_aspect")
    small = [index for index in range(len(pictures)) if size_of[index] not in sizes]
    if small:
        width, height = data.resolution
        notes.append(
            f"{len(small)} of {len(pictures)} pictures are smaller than {width}x{height} and are trained on at their "
            "own size; data.upscale enlarges them"
        )


def _check_masks(pictures: Sequence[Picture], data: DataSection, notes: list[str]) -> None:
    if data.masks == "none":
        return
    with_file = [picture for picture in pictures if picture.mask is not None]
    with_alpha = [picture for picture in pictures if picture.alpha]
    masked = {"file": with_file, "alpha": with_alpha}.get(data.masks, [*with_file, *with_alpha])
    if not masked:
        wanted = {"file": "<name>.mask.png", "alpha": "an alpha channel"}.get(
            data.masks, "<name>.mask.png or an alpha channel"
        )
        raise ConfigError("data.masks", [f"none of {len(pictures)} pictures has {wanted}: add masks, or set none"])
    bare = len(pictures) - len({picture.name for picture in masked})
    if bare:
        notes.append(f"{bare} of {len(pictures)} pictures have no mask: all of them counts")
