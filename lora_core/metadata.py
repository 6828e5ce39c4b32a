"""What the header of a LoRA file says about it: kohya's ``ss_*``, ``modelspec.*`` and ``model_spec.*``.

All values are texts, nested JSON included. They are claims, not facts (shapes decide), and they come from strangers:
every text is cleaned and bounded. Nothing here raises; a value that cannot be read is named in ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import CorruptFileError
from .numeric import finite
from .untrusted import MAX_FILE, clean, json_object, mapping, sequence, words

_LINE = 300
# A thumbnail is a data URL; a larger one is no thumbnail.
_MAX_THUMBNAIL = 2_000_000
_NOTHING = frozenset({"", "None", "none", "null", "Unknown"})


@dataclass(frozen=True, slots=True)
class Metadata:
    """The useful part of a header.

    Args:
        title: name of the LoRA.
        base: architecture that it was made for, as the file writes it.
        base_file: checkpoint that it was trained on.
        author, date, description, license, usage_hint: as the file writes them.
        tags: keywords.
        trigger_words: of the trigger phrase.
        comment: kohya's training comment.
        module: what trained it (``networks.lora``); with ``dim``, ``alpha`` and ``arguments``.
        clip_skip, resolution, prediction_type, steps: of the training, as the file writes them.
        merged_from: what it was merged from.
        autov3: hash of the tensors when they were saved; "" where it says nothing.
        thumbnail: data URL of a picture.
        frequent_tags: captions' tags that stand in every image, a guess at trigger words (``_frequent``).
        notes: what could not be read.
    """

    title: str = ""
    base: str = ""
    base_file: str = ""
    author: str = ""
    date: str = ""
    description: str = ""
    license: str = ""
    usage_hint: str = ""
    tags: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    comment: str = ""
    module: str = ""
    dim: str = ""
    alpha: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    clip_skip: str = ""
    resolution: str = ""
    prediction_type: str = ""
    steps: str = ""
    merged_from: str = ""
    autov3: str = ""
    thumbnail: str = ""
    frequent_tags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_metadata(header: Mapping[str, str]) -> Metadata:
    """The useful part of a file's metadata.

    >>> read_metadata({"modelspec.title": "Ink", "modelspec.trigger_phrase": "ink style"}).trigger_words
    ('ink style',)
    """
    notes: list[str] = []

    def first(*names: str, limit: int = _LINE) -> str:
        """The first of these that says something."""
        for name in names:
            text = clean(header.get(name), limit)
            if text not in _NOTHING:
                return text
        return ""

    def spec(name: str, *others: str, limit: int = _LINE) -> str:
        return first(f"modelspec.{name}", f"model_spec.{name}", *others, limit=limit)

    arguments = _json(header, "ss_network_args", notes)
    return Metadata(
        title=spec("title", "ss_output_name", "name"),
        base=spec("architecture", "ss_base_model_version").removesuffix("/lora").removesuffix("-lora"),
        base_file=first("ss_sd_model_name"),
        author=spec("author"),
        date=spec("date"),
        description=spec("description", limit=20_000),
        license=spec("license"),
        usage_hint=spec("usage_hint", limit=20_000),
        tags=words([spec("tags", limit=20_000)]),
        trigger_words=words([spec("trigger_phrase", limit=20_000)]),
        comment=first("ss_training_comment", limit=20_000),
        module=first("ss_network_module"),
        dim=first("ss_network_dim"),
        alpha=first("ss_network_alpha"),
        arguments={clean(name, 80): clean(str(value), _LINE) for name, value in list(arguments.items())[:64]},
        clip_skip=first("ss_clip_skip"),
        resolution=spec("resolution", "ss_resolution"),
        prediction_type=spec("prediction_type"),
        steps=first("ss_steps", "ss_max_train_steps"),
        merged_from=spec("merged_from", limit=20_000),
        autov3=_autov3(header),
        thumbnail=_thumbnail(header, notes),
        frequent_tags=words(_frequent(header, notes)),
        notes=tuple(notes),
    )


def _autov3(header: Mapping[str, str]) -> str:
    digest = clean(header.get("sshs_model_hash"), 64).lower()
    # The hash of no bytes at all, which some writers leave.
    useful = len(digest) == 64 and not digest.startswith("e3b0c44298fc")
    return digest[:12] if useful and all(char in "0123456789abcdef" for char in digest) else ""


def _thumbnail(header: Mapping[str, str], notes: list[str]) -> str:
    value = header.get("modelspec.thumbnail") or header.get("model_spec.thumbnail") or ""
    if not value:
        return ""
    kinds = tuple(f"data:image/{kind};base64," for kind in ("jpeg", "png", "webp", "gif"))
    if len(value) > _MAX_THUMBNAIL or not value.startswith(kinds):
        notes.append("the thumbnail in the header is not a small picture, so it is not shown")
        return ""
    return value


def _json(header: Mapping[str, str], name: str, notes: list[str]) -> dict[str, object]:
    """A value that is a JSON object in a text; an empty one where there is none."""
    text = header.get(name, "")
    if text.strip() in _NOTHING:
        return {}
    if len(text) > 10 * MAX_FILE:
        notes.append(f"{name} in the header is larger than {10 * MAX_FILE} characters, so it is not read")
        return {}
    try:
        return json_object(text, f"{name} in the header")
    except CorruptFileError as error:
        notes.append(f"{error.file}: {error.what}")
        return {}


# Words that name a data set and nothing in it.
_GENERIC = frozenset(
    {"", "img", "image", "images", "train", "training", "data", "dataset", "folder", "instance", "lora"}
)
_PER_FOLDER = 3


def _frequent(header: Mapping[str, str], notes: list[str]) -> list[str]:
    """A guess at the trigger words from kohya's tag counts ``{folder: {tag: images}}``.

    Per folder of the training set: the tags that stand in every one of its images, at most three in the order of
    the captions, for trainers put the trigger word first; where there are none, the name that kohya's folders carry
    (``16_smf girl``). Regularisation folders do not count. Without the number of images (``ss_dataset_dirs``,
    ``ss_datasets``) the highest count stands for it.
    """
    folders = _json(header, "ss_tag_frequency", notes)
    if not folders:
        return []
    images = _image_counts(header, notes)
    regular = _json(header, "ss_reg_dataset_dirs", notes)
    found: list[str] = []
    for folder, table in folders.items():
        if folder in regular:
            continue
        counts = {tag: int(count) for tag, value in mapping(table).items() if (count := finite(value)) is not None}
        total = images.get(folder) or max(counts.values(), default=0)
        # In a single image every tag stands in every image.
        common = [tag for tag, count in counts.items() if count >= total] if total > 1 else []
        if common:
            found += common[:_PER_FOLDER]
        else:
            repeats, _, name = folder.partition("_")
            if repeats.isdigit() and name.strip().lower() not in _GENERIC:
                found.append(name)
    return found


def _image_counts(header: Mapping[str, str], notes: list[str]) -> dict[str, int]:
    """Folder -> number of images."""
    counts: dict[str, int] = {}
    for folder, entry in _json(header, "ss_dataset_dirs", notes).items():
        count = finite(mapping(entry).get("img_count"))
        if count:
            counts[folder] = int(count)
    text = header.get("ss_datasets", "")
    if text.strip() not in _NOTHING:
        # A list; as an object it goes the same way through the same checks.
        datasets = _json({"ss_datasets": f'{{"": {text}}}'}, "ss_datasets", notes)
        for dataset in sequence(datasets.get("")):
            for subset in sequence(mapping(dataset).get("subsets")):
                entry = mapping(subset)
                count, folder = finite(entry.get("img_count")), entry.get("image_dir")
                if count and isinstance(folder, str):
                    counts.setdefault(folder.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1], int(count))
    return counts
