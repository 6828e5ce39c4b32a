"""Every inventory there is: nothing unmatched, format and base found untold, the wrong base recognised."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import inventories
from inventories import ALL, FORMATS, family, parts, reliable
from lora_core import Adapter, Stack, StackEntry, map_source
from lora_core.architectures import ARCHITECTURES, Architecture
from lora_core.errors import WrongBaseError
from lora_core.fitting import group_keys, names_of
from lora_core.formats import FORMATS as ROWS
from lora_core.mapping import detect_formats, require_complete
from lora_core.patching import bind
from lora_core.types import Target

SHAPED = [path for path in ALL if reliable(path)]
# Samples that somebody made up by hand: their names are right and their shapes fit no model.
NAMES_ALONE = [path for path in ALL if not reliable(path)]


# Another family takes all of these too: the same modules with the same shapes, or a type that does not show the
# inputs. Nobody can tell them apart; a connected model, the metadata or the order of the table decides.
UNTELLABLE = {
    "sd15__kohya__lora_toplevel": "conv_in, conv_out and time_embed are those of SDXL",
    "sdxl__kohya-ldm__lora_toplevel": "input, label and time embeddings are those of SSD-1B",
    "sd15__kohya__oft_kohya-oft": "OFT on the outputs, which SD 2.1 has too",
    "qwen-image__diffusers-bare__lora_invoke-sample": "three projections that FLUX has too",
    "flux__xlabs__lora_invoke-sample": "some attentions, which HunyuanVideo has too",
    "sd3__diffusers-peft__lora": "attentions of SD 3, all of which SD 3.5 Medium has too",
}


def cases(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@cache
def mapped(path: Path, architecture: str | None = None, prefer: str | None = None) -> Adapter:
    return map_source(inventories.source(inventories.read(path), path.stem), architecture, prefer)


def test_there_are_as_many_as_there_were(keys: Path) -> None:
    """An empty parametrisation would pass in silence."""
    assert (len(SHAPED), len(NAMES_ALONE)) == (127, 6)


@cases(SHAPED)
def test_every_tensor_is_accounted_for(path: Path) -> None:
    # The family that is named is tried first; it is needed for the three files that say nothing.
    adapter = mapped(path, prefer=family(path) if path.stem in UNTELLABLE else None)
    report = adapter.report

    assert ARCHITECTURES.get(report.architecture).family == family(path)
    assert report.format == FORMATS[parts(path)[1]]
    assert report.unmatched == {}
    assert report.misfit == ()
    accounted = [*report.used, *report.ignored]
    assert sorted(accounted) == sorted(inventories.read(path)["tensors"])
    require_complete(report)


@cases(NAMES_ALONE)
def test_every_name_of_a_sample_is_a_module(path: Path) -> None:
    source = inventories.source(inventories.read(path), path.stem)
    names = [
        names_of(scheme.name, row.name)
        for scheme in detect_formats(source)
        for row in ARCHITECTURES
        if row.family == family(path) and scheme.name == FORMATS[parts(path)[1]]
    ]
    groups = group_keys(source, ROWS.get(FORMATS[parts(path)[1]]))
    assert any(set(groups.modules) <= set(table) for table in names)
    assert groups.unmatched == {}


@cases(ALL)
def test_every_formats_detector(path: Path) -> None:
    """The right format explains the file best; those that tie differ from it in the modules' names alone."""
    source = inventories.source(inventories.read(path), path.stem)
    expected = FORMATS[parts(path)[1]]
    evidence = {row.name: row.recognise(source) for row in ROWS}
    best = {name for name, count in evidence.items() if count == max(evidence.values())}

    assert expected in best
    assert best <= ({"diffusers", "original", "omi"} if len(best) > 1 else {expected})
    assert [scheme.name for scheme in detect_formats(source)] == [name for name in ROWS.names if name in best]


ACCEPTABLE = ("where it never took part", "is not in the file, so it changes nothing")


@cases(SHAPED)
def test_ignored_tensors_have_an_acceptable_reason(path: Path) -> None:
    report = mapped(path).report
    for reason in report.ignored.values():
        assert any(text in reason for text in ACCEPTABLE), reason


@cases(SHAPED)
def test_the_wrong_base_is_named(path: Path) -> None:
    """On a model of another family the file is refused, and the error names the family that it was made for."""
    adapter = mapped(path)
    own = ARCHITECTURES.get(adapter.architecture)
    for other in relatives(path, own):
        with pytest.raises(WrongBaseError) as caught:
            bind(Stack((StackEntry(adapter),)), shapes_of(other), other)
        assert (caught.value.made_for, caught.value.model) == (own.title, other.title)


@cases(SHAPED)
def test_a_forced_base_never_takes_a_file_in_silence(path: Path) -> None:
    own = ARCHITECTURES.get(mapped(path).architecture)
    whole = len(mapped(path).deltas)
    for other in relatives(path, own):
        error = refusal(path, other)
        if error is not None:
            assert (error.made_for, error.model) == (own.title, other.title)
            continue
        forced = mapped(path, other.name)
        assert forced.report.complete == (len(forced.deltas) == whole)


@cases(SHAPED)
def test_a_model_of_another_family_does_not_draw_a_file_to_itself(path: Path) -> None:
    """As a loader does it: the connected model's family is preferred, and its own family is still found."""
    own = ARCHITECTURES.get(mapped(path).architecture)
    for other in relatives(path, own):
        found = ARCHITECTURES.get(mapped(path, prefer=other.name).architecture)
        assert found.family == own.family or path.stem in UNTELLABLE


def refusal(path: Path, other: Architecture) -> WrongBaseError | None:
    try:
        mapped(path, other.name)
    except WrongBaseError as error:
        return error
    return None


@cache
def relatives(path: Path, own: Architecture, most: int = 3) -> list[Architecture]:
    """The other families whose names are most like the file's: the ones that are hard to tell from its own."""
    groups = group_keys(inventories.source(inventories.read(path), path.stem), ROWS.get(FORMATS[parts(path)[1]]))
    others = [row for row in ARCHITECTURES if row.family != own.family]

    def hits(row: Architecture) -> int:
        table = names_of(FORMATS[parts(path)[1]], row.name)
        return sum(name in table for name in groups.modules)

    return sorted(others, key=hits, reverse=True)[:most]


def shapes_of(row: Architecture):
    return lambda target: row.shape(Target(target.module, target.parameter))
