"""Files that other programs keep beside a LoRA, read where they stand.

For ``ink.safetensors``: ``ink.json`` (A1111, Forge), ``ink.metadata.json`` (Lora-Manager),
``ink.safetensors.rgthree-info.json``, ``ink.civitai.info``, ``ink.txt``, and pictures. All of it is text from
strangers or from hurried hands: bounded, cleaned, and never a reason for a LoRA not to load. What cannot be read is
named in ``Sidecar.notes``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import CorruptFileError
from .numeric import finite
from .untrusted import clean, json_object, mapping, read_json, read_text, sequence, words

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# Behind ".preview" other kinds occur too, moving ones among them.
PREVIEWS = (*PICTURES, ".gif", ".avif", ".webm", ".mp4")
# A longer text beside a LoRA is a description, not a list of words for the prompt.
_LONGEST_WORD_LIST = 500


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What stands beside a file; the first source in the order of ``READERS`` that says a thing wins.

    Args:
        trigger_words: of all sources, each once.
        strength: recommended, None where none is.
        strength_min, strength_max: recommended range.
        description: of the LoRA; may hold HTML, which is text here.
        base: base model, as the source writes it.
        negative: text for the negative prompt.
        user_notes: the user's own.
        sha256: of the file, as the source says.
        preview: a picture beside the file.
        sources: names of the files that were read.
        notes: what could not be read, for the user.
    """

    trigger_words: tuple[str, ...] = ()
    strength: float | None = None
    strength_min: float | None = None
    strength_max: float | None = None
    description: str = ""
    base: str = ""
    negative: str = ""
    user_notes: str = ""
    sha256: str = ""
    preview: Path | None = None
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_sidecars(path: str | os.PathLike[str]) -> Sidecar:
    """Everything beside the file at ``path``, which itself is not opened."""
    file = Path(path)
    merged = Sidecar(preview=_preview(file))
    for place, read in sidecar_files(file).items():
        try:
            found = read(place)
        except CorruptFileError as error:
            merged = replace(merged, notes=(*merged.notes, f"{error.file} beside the LoRA is left out: {error.what}"))
        else:
            merged = _merge(merged, replace(found, sources=(place.name,)))
    return merged


def sidecar_files(path: str | os.PathLike[str]) -> dict[Path, Callable[[Path], Sidecar]]:
    """The sidecars of a file that are there, and how each is read, in the order of ``READERS``; without pictures."""
    file = Path(path)
    places = {file.with_name(name.format(stem=file.stem, name=file.name)): read for name, read in READERS}
    # A data set's caption file or a config may have the name of a sidecar: only plain files count.
    return {place: read for place, read in places.items() if os.path.isfile(place)}


def _merge(one: Sidecar, other: Sidecar) -> Sidecar:
    """Both; what the first says stays."""
    return Sidecar(
        trigger_words=words([*one.trigger_words, *other.trigger_words]),
        strength=other.strength if one.strength is None else one.strength,
        strength_min=other.strength_min if one.strength_min is None else one.strength_min,
        strength_max=other.strength_max if one.strength_max is None else one.strength_max,
        description=one.description or other.description,
        base=one.base or other.base,
        negative=one.negative or other.negative,
        user_notes=one.user_notes or other.user_notes,
        sha256=one.sha256 or other.sha256,
        preview=one.preview or other.preview,
        sources=(*one.sources, *other.sources),
        notes=(*one.notes, *other.notes),
    )


def _preview(file: Path) -> Path | None:
    """``ink.png``, or else ``ink.preview.png``, in the order of the kinds."""
    names = [f"{file.stem}{end}" for end in PICTURES] + [f"{file.stem}.preview{end}" for end in PREVIEWS]
    return next((place for name in names if os.path.isfile(place := file.with_name(name))), None)


def _a1111(path: Path) -> Sidecar:
    """A1111 and Forge: what the user typed into the card. A preferred weight of 0 means that none is set."""
    table = read_json(path)
    return Sidecar(
        trigger_words=words([table.get("activation text")]),
        strength=_number(table, "preferred weight") or None,
        description=clean(table.get("description")),
        base=clean(table.get("sd version"), 80),
        negative=clean(table.get("negative text")),
        user_notes=clean(table.get("notes")),
    )


def _lora_manager(path: Path) -> Sidecar:
    """Lora-Manager; ``usage_tips`` is JSON in a text, the site's answer is nested in ``civitai``."""
    table = read_json(path)
    tips, notes = _tips(table.get("usage_tips"), path.name)
    civitai = mapping(table.get("civitai"))
    return Sidecar(
        trigger_words=words([*sequence(table.get("trainedWords")), *sequence(civitai.get("trainedWords"))]),
        strength=_number(tips, "strength"),
        strength_min=_number(tips, "strength_min"),
        strength_max=_number(tips, "strength_max"),
        description=clean(table.get("modelDescription")) or clean(civitai.get("description")),
        base=clean(table.get("base_model"), 80),
        user_notes=clean(table.get("notes")),
        sha256=_sha256(table.get("sha256")),
        preview=_beside(path, table.get("preview_url")),
        notes=notes,
    )


def _beside(path: Path, value: object) -> Path | None:
    """The picture of that name in the folder of ``path``: its own folder is another machine's, or not ours to read."""
    name = clean(value, 1000).replace("\\", "/").rsplit("/", 1)[-1]
    if name in ("", ".", "..") or len(name.encode()) > 255:  # the longest that file systems take
        return None
    place = path.with_name(name)
    return place if place.suffix.lower() in PREVIEWS and place.is_file() else None


def _tips(value: object, name: str) -> tuple[Mapping[str, object], tuple[str, ...]]:
    if not isinstance(value, str) or not value.strip():
        return mapping(value), ()
    try:
        return json_object(value, f"usage_tips in {name}"), ()
    except CorruptFileError as error:
        return {}, (f"{error.file} beside the LoRA is left out: {error.what}",)


def _rgthree(path: Path) -> Sidecar:
    """rgthree; a trained word is a text or ``{"word": ...}``."""
    table = read_json(path)
    trained = [mapping(word).get("word", word) for word in sequence(table.get("trainedWords"))]
    return Sidecar(
        trigger_words=words(trained),
        strength_min=_number(table, "strengthMin"),
        strength_max=_number(table, "strengthMax"),
        base=clean(table.get("baseModel"), 80),
        user_notes=clean(table.get("userNote")),
        sha256=_sha256(table.get("sha256")),
    )


def _civitai(path: Path) -> Sidecar:
    """The site's answer for one version of a model, as several downloaders save it."""
    table = read_json(path)
    model = mapping(table.get("model"))
    return Sidecar(
        trigger_words=words(sequence(table.get("trainedWords"))),
        description=clean(table.get("description")) or clean(model.get("description")),
        base=clean(table.get("baseModel"), 80),
    )


def _text(path: Path) -> Sidecar:
    """A short text is words for the prompt, a long one a description."""
    text = clean(read_text(path))
    return Sidecar(description=text) if len(text) > _LONGEST_WORD_LIST else Sidecar(trigger_words=words([text]))


# Name beside the file -> how to read it, in the order of trust: what the user typed, what their programs keep, what a
# site said, and loose text.
READERS: tuple[tuple[str, Callable[[Path], Sidecar]], ...] = (
    ("{stem}.json", _a1111),
    ("{stem}.metadata.json", _lora_manager),
    ("{name}.rgthree-info.json", _rgthree),
    ("{stem}.civitai.info", _civitai),
    ("{stem}.txt", _text),
)


def _number(table: Mapping[str, object], name: str) -> float | None:
    return finite(table.get(name))


def _sha256(value: object) -> str:
    digest = clean(value, 64).lower()
    return digest if len(digest) == 64 and all(char in "0123456789abcdef" for char in digest) else ""
