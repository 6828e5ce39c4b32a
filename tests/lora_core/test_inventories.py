"""Every inventory of this version's bases, formats and types: nothing unmatched, format and base found untold."""

from __future__ import annotations

from pathlib import Path

import pytest

import inventories
from inventories import FORMATS, OTHER, SCOPE, parts
from lora_core import map_source
from lora_core.architectures import ARCHITECTURES
from lora_core.errors import LoomError, UnknownArchitectureError, UnknownFormatError, WrongBaseError
from lora_core.mapping import require_complete
from lora_core.types import MappingReport


def cases(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_scope_is_what_it_was(keys: Path) -> None:
    """The lists above find something: an empty parametrisation would pass in silence."""
    assert len(SCOPE) == 42


@cases(SCOPE)
def test_every_tensor_is_accounted_for(path: Path) -> None:
    base, scheme, _ = parts(path)
    inventory = inventories.read(path)
    adapter = map_source(inventories.source(inventory, path.stem))
    report = adapter.report

    assert report.architecture == base
    assert report.format == FORMATS[scheme]
    assert report.unmatched == {}
    assert report.misfit == ()
    accounted = [*report.used, *report.ignored]
    assert sorted(accounted) == sorted(inventory["tensors"])
    require_complete(report)


@cases(SCOPE)
def test_every_module_is_in_the_checkpoint(path: Path, keys: Path) -> None:
    """Each target has a place in the real checkpoint's inventory, and the slice lies inside it."""
    base, _, _ = parts(path)
    checkpoint = inventories.read(keys / "base" / f"{base}__{'ldm' if base == 'sd15' else 'sgm'}.json")["tensors"]
    architecture = ARCHITECTURES.get(base)
    adapter = map_source(inventories.source(inventories.read(path), path.stem))
    for target, _ in adapter.deltas:
        place = architecture.place(target)
        assert place is not None
        assert place.key in checkpoint
        if place.slice is not None:
            dim, start, length = place.slice
            assert start + length <= checkpoint[place.key][dim]


ACCEPTABLE = ("bundled with the LoRA", "where it never took part", "is not in the file, so it changes nothing")


@cases(SCOPE)
def test_ignored_tensors_have_an_acceptable_reason(path: Path) -> None:
    report = map_source(inventories.source(inventories.read(path), path.stem)).report
    for reason in report.ignored.values():
        assert any(text in reason for text in ACCEPTABLE), reason


@cases(SCOPE)
def test_the_wrong_base_is_named(path: Path) -> None:
    """An SDXL file forced on SD 1.5, and the other way round, is refused or says what is left over."""
    base, _, _ = parts(path)
    other = ARCHITECTURES.get("sdxl" if base == "sd15" else "sd15")
    source = inventories.source(inventories.read(path), path.stem)
    whole = len(map_source(source).deltas)
    try:
        forced = map_source(source, architecture=other.name)
    except WrongBaseError as error:
        found = error.made_for, error.model, error.fitting
        assert found == (ARCHITECTURES.get(base).title, other.title, 0)
    else:
        # conv_in, conv_out and time_embed are the same in both bases: nobody can tell such a file apart.
        shared = path.stem == "sd15__kohya__lora_toplevel"
        assert len(forced.deltas) == whole if shared else len(forced.deltas) < whole
        assert forced.report.complete == shared


@cases(OTHER)
def test_files_of_other_kinds_are_never_taken_in_silence(path: Path) -> None:
    """Formats, types and bases that are not known yet: a clear error, never taken for a base that is known."""
    inventory = inventories.read(path)
    report = report_or_error(path, inventory)
    if isinstance(report, LoomError):
        assert path.stem in str(report)
        return
    # Some types mix with known ones in one file; then the base is right and every leftover is in the report.
    assert report.architecture == parts(path)[0]
    listed = [*report.used, *report.unmatched, *report.ignored, *(misfit.key for misfit in report.misfit)]
    assert sorted(listed) == sorted(inventory["tensors"])
    assert not report.complete


def report_or_error(path: Path, inventory: inventories.Inventory) -> MappingReport | LoomError:
    try:
        return map_source(inventories.source(inventory, path.stem)).report
    except (UnknownFormatError, UnknownArchitectureError) as error:
        return error
