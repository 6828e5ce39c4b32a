"""A conversion on disk, and what it did."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..architectures import ARCHITECTURES
from ..errors import ConfigError, OutputExistsError
from ..finite import check_finite
from ..inspect import Json, inspect_file
from ..io import Entry, TensorRef, stream_safetensors
from ..io.atomic import atomic_file
from ..io.opening import CONFIG, FOLDER_FILES
from ..mapping import load_adapter
from ..stack import Adapter
from .conversion import FOLDERS, Change, Content, Conversion, convert
from .describing import new_metadata
from .units import Stored, source_of

Progress = Callable[[int, int], None]
# The written file -> its metadata; before it is there (None) with zeros in the place of hashes.
LateMetadata = Callable[["Path | None"], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What a conversion did.

    Args:
        files: that were written.
        source: name of the file that was converted.
        source_format, format: names in ``FORMATS``.
        dtype: as chosen.
        changes: what became of each module.
        left_out: keys of the source that are not in the new file -> reason.
        seconds: from opening to the finished file.
    """

    files: tuple[Path, ...]
    source: str
    source_format: str
    format: str
    dtype: str
    changes: tuple[Change, ...]
    left_out: Mapping[str, str]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """``{"renamed": 192, "joined": 76}``."""
        return dict(Counter(change.how for change in self.changes).most_common())

    def as_json(self) -> list[Json]:
        """For ``--json`` and the node's report: what ``inspect`` says of each new file, and how it came to be."""
        converted: Json = {
            "source": self.source,
            "source_format": self.source_format,
            "format": self.format,
            "dtype": self.dtype,
            "modules": self.counts,
            "changed": {
                change.name: list(change.sources) for change in self.changes if change.how in ("cut", "joined")
            },
            "left_out": dict(self.left_out),
            "seconds": round(self.seconds, 2),
        }
        return [{**inspect_file(file), "converted": converted} for file in self.files]


def convert_lora(
    source: Adapter | str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str = "kohya",
    *,
    dtype: str = "same",
    architecture: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write a LoRA in another format; every module changes a model as it did.

    Args:
        source: a file or folder, as for ``load_adapter``, or an adapter.
        out: the file to write; for PEFT the folder, which gets a folder for each component where there are several.
        format: one of ``WRITERS``.
        dtype: one of ``DTYPES``.
        architecture: as for ``load_adapter``.
        overwrite: replace what is there.
        progress: called with (bytes done, bytes in all) of each file; what it raises stops the conversion.

    Raises:
        as ``load_adapter`` and ``convert``.
        ConfigError: a name that does not suit the format.
        NonFiniteError: the source holds NaN or infinity.
        OutputExistsError, DiskFullError: the file cannot be written.
    """
    started = time.monotonic()
    adapter = source if isinstance(source, Adapter) else load_adapter(source, architecture)
    made = convert(adapter, format, dtype)

    def describe(stated: Mapping[str, str]) -> LateMetadata:
        return new_metadata(source_of(adapter), format, dtype, stated)

    files = write_conversion(adapter, made, Path(out), describe, overwrite=overwrite, progress=progress)
    return ConvertReport(
        files=files,
        source=adapter.file,
        source_format=adapter.report.format,
        format=format,
        dtype=dtype,
        changes=made.changes,
        left_out=made.left_out,
        seconds=time.monotonic() - started,
    )


def write_conversion(
    adapter: Adapter,
    made: Conversion,
    out: Path,
    describe: Callable[[Mapping[str, str]], LateMetadata],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write the files of a conversion, each whole or not at all; returns them.

    Args:
        adapter: that was converted.
        made: of ``convert``.
        out: the file, or the folder for formats of ``FOLDERS``.
        describe: what the format itself states in the metadata -> the metadata, as ``new_metadata``.
        overwrite, progress: as for ``convert_lora``.

    Raises:
        as ``convert_lora``.
    """
    files = _places(adapter, made, out)
    if not overwrite:
        for file in files:
            if file.exists():
                raise OutputExistsError(str(file.relative_to(out.parent)))
    check_finite(adapter)
    if made.scheme.name in FOLDERS:
        with _new_folder(out) as folder:
            for content, file in zip(made.contents, files, strict=True):
                _write(adapter, content, folder / file.relative_to(out), describe, overwrite, progress)
    else:
        _write(adapter, made.contents[0], files[0], describe, overwrite, progress)
    return tuple(files)


def _places(adapter: Adapter, made: Conversion, out: Path) -> list[Path]:
    """The file of each content."""
    folder = made.scheme.name in FOLDERS
    if (out.suffix == ".safetensors") == folder:
        fault = "is a folder: give a name without" if folder else "is a file: give a name that ends in"
        raise ConfigError(out.name, [f"the format {made.scheme.name} {fault} .safetensors"])
    if not folder:
        return [out]
    if len(made.contents) == 1:
        return [out / FOLDER_FILES[0]]
    folders = {part.name: part.diffusers_prefix for part in ARCHITECTURES.get(adapter.architecture).components}
    return [out / folders[content.component] / FOLDER_FILES[0] for content in made.contents]


def _write(
    adapter: Adapter,
    content: Content,
    file: Path,
    describe: Callable[[Mapping[str, str]], LateMetadata],
    overwrite: bool,
    progress: Progress | None,
) -> None:
    late = describe(content.metadata)
    entries = [_entry(adapter.file, key, stored) for key, stored in content.tensors.items()]
    if content.config is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    stream_safetensors(file, entries, late(None), overwrite=overwrite, progress=progress, late=late)
    if content.config is not None:
        text = json.dumps(content.config, indent=2).encode()
        with atomic_file(file.with_name(f"{CONFIG}.json"), size=len(text), overwrite=overwrite) as target:
            target.write(text)


@contextlib.contextmanager
def _new_folder(out: Path) -> Generator[Path, None, None]:
    """A folder that is not there yet becomes ``out`` when the block ends without an exception; one that is there gets
    its files one by one."""
    if out.exists():
        yield out
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _entry(file: str, key: str, stored: Stored) -> Entry:
    """Bytes of the source are taken over as they are; the rest is computed.

    Raises (the entry, when it is computed):
        ConfigError: a number is beyond what fp16 holds, which ends at 65504.
    """
    if isinstance(stored.content, TensorRef) and stored.content.dtype == stored.dtype:
        return Entry(key, stored.dtype, stored.shape, stored.content)

    def load() -> torch.Tensor:
        tensor = stored.load()
        if stored.dtype == "F16" and bool(tensor.isinf().any()):
            raise ConfigError(
                file, [f"{key} has numbers beyond 65504, where fp16 ends. Convert with dtype bf16 or fp32"]
            )
        return tensor

    return Entry(key, stored.dtype, stored.shape, load)
