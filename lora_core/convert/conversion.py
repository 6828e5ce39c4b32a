"""An adapter in the words of another format: which tensors under which names, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConversionError, UnknownNameError
from ..formats import FORMATS, Format, Writing
from ..formats.diffusers import METADATA_KEY
from ..io.dtypes import NAMES
from ..merge.dtypes import CASTS
from ..stack import Adapter
from ..types import COMPONENTS
from .configs import Json, peft_config
from .gathering import gather
from .places import Assembly, place
from .spelling import Speller, cast
from .units import Stored, Unit, units_of

# The formats that can be written, kohya's first: what most programs read.
WRITERS: tuple[str, ...] = tuple(row.name for row in FORMATS if row.writing is not None)
# Of these, the formats whose files are folders.
FOLDERS = frozenset(row.name for row in FORMATS if row.writing is not None and row.writing.scale == "config")
DTYPES = ("same", *CASTS)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one module: ``renamed``, ``cut`` from a larger one, ``joined`` of several.

    Args:
        name: what stands in front of the suffixes in the new file.
        sources: its names in the old file.
        how: one of the three words; "kept" where not even the name changed.
    """

    name: str
    sources: tuple[str, ...]
    how: str


@dataclass(frozen=True, slots=True)
class Content:
    """One file to be written.

    Args:
        component: that it is of, for formats with a file for each; "" for all.
        tensors: key -> tensor.
        metadata: what the format itself states there.
        config: of the folder, for formats that have one.
    """

    component: str
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    config: Json | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """An adapter in another format.

    Args:
        scheme: the format.
        dtype: as chosen.
        contents: the files, one but for formats of a folder a component.
        changes: what became of each module.
        left_out: keys of the source that are in no file -> reason.
    """

    scheme: Format
    dtype: str
    contents: tuple[Content, ...]
    changes: tuple[Change, ...]
    left_out: Mapping[str, str]


def convert(adapter: Adapter, format: str, dtype: str = "same") -> Conversion:
    """Say an adapter in another format; no tensor is read yet.

    Args:
        adapter: of a file or of tensors in memory.
        format: one of ``WRITERS``.
        dtype: one of ``DTYPES``.

    Raises:
        UnknownNameError: there is no such format to write, or no such type.
        ConversionError: the format has no way to say one of the modules.
    """
    scheme, writing = _writer(format)
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    file, title = adapter.file, scheme.title
    speller = Speller(file, title, writing)
    made = place(file, adapter.architecture, units_of(adapter), writing, title)
    spelt = [
        (one, speller.spell(unit)) for assembly in made for one, unit in _gathered(adapter, title, writing, assembly)
    ]
    embeddings, left_out = _embeddings(adapter, writing, title)
    contents = _contents(file, scheme, writing, spelt, embeddings, dtype)
    changes = tuple(_change(one) for one, _ in spelt)
    report = adapter.report
    unused = {
        **report.unmatched,
        **report.ignored,
        **{one.key: f"expected {one.expected}, got {one.got}" for one in report.misfit},
    }
    return Conversion(scheme, dtype, contents, changes, {**unused, **left_out})


def _writer(format: str) -> tuple[Format, Writing]:
    scheme = FORMATS.get(format) if format in WRITERS else None
    if scheme is None or scheme.writing is None:
        raise UnknownNameError("format to write", format, WRITERS)
    return scheme, scheme.writing


def _gathered(adapter: Adapter, title: str, writing: Writing, made: Assembly) -> list[tuple[Assembly, Unit]]:
    """The unit of a module; of one that cannot be joined its parts, where the format has other names for them."""
    try:
        return [(made, gather(adapter.file, title, made))]
    except ConversionError:
        apart = _apart(adapter, title, writing, made)
        if not apart:
            raise
        return [(one, one.units[0]) for one in apart]


def _apart(adapter: Adapter, title: str, writing: Writing, made: Assembly) -> list[Assembly]:
    units = made.units
    whole = all(sum(one.length for one in made.segments if one.unit is unit) == unit.rows for unit in units)
    if writing.apart is None or not whole:
        return []
    try:
        apart = place(adapter.file, adapter.architecture, units, writing.apart, title)
    except ConversionError:
        return []
    return apart if all(one.same for one in apart) else []


def _contents(
    file: str,
    scheme: Format,
    writing: Writing,
    spelt: list[tuple[Assembly, Unit]],
    embeddings: Mapping[str, Stored],
    dtype: str,
) -> tuple[Content, ...]:
    wanted = None if dtype == "same" else NAMES[CASTS[dtype]]
    by_component: dict[str, list[tuple[Assembly, Unit]]] = {}
    for one, unit in sorted(spelt, key=lambda pair: COMPONENTS.index(pair[0].component.name)):
        by_component.setdefault(one.component.name, []).append((one, unit))
    tensors: dict[str, dict[str, Stored]] = {}
    for name, modules in by_component.items():
        tensors[name] = {}
        for one, unit in modules:
            # diffusers takes a file's first key for a sign of its version, so the order is the table's: down first.
            for role in sorted(unit.roles, key=list(writing.suffixes).index):
                stored = unit.roles[role]
                key = f"{one.name}.{writing.suffix(role, unit.roles)}"
                tensors[name][key] = cast(stored, role, wanted or stored.dtype)
    configs = {
        name: peft_config(file, scheme.title, {one.path: unit for one, unit in modules})
        for name, modules in by_component.items()
        if writing.scale != "alpha"
    }
    if writing.scale == "config":
        return tuple(Content(name, tensors[name], {"format": "pt"}, configs[name]) for name in tensors)
    whole = {key: stored for part in tensors.values() for key, stored in part.items()} | dict(embeddings)
    if writing.scale == "alpha":
        return (Content("", whole, {}),)
    folders = {modules[0][0].component.diffusers_prefix: configs[name] for name, modules in by_component.items()}
    return (Content("", whole, {"format": "pt"} | _ranks(folders)),)


def _ranks(folders: Mapping[str, Json]) -> dict[str, str]:
    """The metadata of diffusers, where it is needed: without it, diffusers before 0.36 gives modules of other ranks
    than the usual one another scale. With it, it has to name every component."""
    if not any(config["rank_pattern"] for config in folders.values()):
        return {}
    stated = {
        f"{folder}.{name}": value
        for folder, config in folders.items()
        for name, value in config.items()
        if name != "peft_type"
    }
    return {METADATA_KEY: json.dumps(stated, sort_keys=True)}


def _embeddings(adapter: Adapter, writing: Writing, title: str) -> tuple[dict[str, Stored], dict[str, str]]:
    """key -> embedding, and key in the source -> why it is left out."""
    kept: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for token, encoders in adapter.embeddings.items():
        for encoder, ref in encoders.items():
            if writing.embedding is None:
                left_out[ref.name] = f"the format {title} has no embeddings"
            else:
                kept[writing.embedding(token, encoder)] = Stored.of(ref)
    return kept, left_out


def _change(made: Assembly) -> Change:
    name, sources = made.name, tuple(unit.name for unit in made.units)
    if made.same:
        return Change(name, sources, "kept" if sources == (name,) else "renamed")
    return Change(name, sources, "joined" if len(sources) > 1 else "cut")
