"""Errors of LoRA Loom. Each is one line for the user: what, where, expected and found, what to do.

Every class keeps its facts as attributes, so that a caller need not parse the text, and is also a
built-in (``ValueError``, ``KeyError``, ``ImportError``), so that general handlers work.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from heapq import nlargest
from itertools import pairwise

from .text import one_line

# Longer messages lose their middle: a file may have a key of a million characters.
MAX_MESSAGE = 2_000


class LoomError(Exception):
    """Base of all errors that LoRA Loom raises on purpose.

    The message is one line without control characters, whatever names and keys of a stranger's file it quotes;
    the attributes of the classes keep those as they are.
    """

    def __init__(self, message: str) -> None:
        self.message = one_line(message, MAX_MESSAGE)
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError.__str__ would print the repr of the message, with quotes.
        return self.message


class UnknownFormatError(LoomError, ValueError):
    """No format in ``FORMATS`` recognises the keys of a file."""

    def __init__(self, file: str, example: str, known: Sequence[str], hint: str = "") -> None:
        self.file, self.example, self.known = file, example, tuple(known)
        super().__init__(
            f"{file}: not a LoRA file in a known format; its keys look like {example!r}; known formats: "
            f"{', '.join(known)}. {hint or 'Check that it is a LoRA and not a checkpoint or an embedding.'}"
        )


class UnmappedKeysError(LoomError, KeyError):
    """Strict loading met tensors that no module of the model takes."""

    def __init__(self, file: str, keys: Sequence[str], total: int, reason: str, noun: str = "tensors") -> None:
        self.file, self.keys, self.total = file, tuple(keys), total
        shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        super().__init__(
            f"{file}: {len(keys)} of {total} {noun} are not used ({shown}): {reason}. "
            f"Use a LoRA made for this model, or switch strict off to load the rest."
        )


class WrongBaseError(LoomError, ValueError):
    """A LoRA was made for another base than the model it is put on."""

    def __init__(self, file: str, made_for: str, model: str, fitting: int, total: int) -> None:
        self.file, self.made_for, self.model, self.fitting, self.total = file, made_for, model, fitting, total
        super().__init__(
            f"{file}: made for {made_for}, the model is {model}: {fitting} of {total} modules fit. "
            f"Load a {made_for} checkpoint, or a LoRA for {model}."
        )


class ShapeMismatchError(LoomError, ValueError):
    """A tensor has a shape that its module cannot take."""

    def __init__(self, file: str, key: str, expected: object, got: object, hint: str) -> None:
        self.file, self.key, self.expected, self.got = file, key, expected, got
        super().__init__(f"{file}: {key}: expected {expected}, got {got}. {hint}")


# Names that are compared letter by letter; for 5,000 that takes a third of a second.
_COMPARED = 50


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The most similar of the names, None where none is near; of many, those with the most pairs of letters in common
    are looked at."""
    if len(known) > _COMPARED:
        pairs = set(pairwise(name))

        def common(other: str) -> float:
            own = set(pairwise(other))
            return len(pairs & own) / (len(pairs) + len(own) + 1)

        known = nlargest(_COMPARED, known, common)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return near[0] if near else None


class UnknownNameError(LoomError, KeyError):
    """A name that is not in a table; carries the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Sequence[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        self.nearest = nearest(name, self.known)
        if self.nearest:
            advice = f"did you mean {self.nearest!r}?"
        elif known:
            listed = ", ".join(self.known[:12]) + (", ..." if len(self.known) > 12 else "")
            advice = f"known: {listed}."
        else:
            advice = "there is none."
        super().__init__(f"no {kind} named {name!r}: {advice}" + (f" {hint}" if hint else ""))


class AmbiguousNameError(LoomError, ValueError):
    """A short name fits several files."""

    def __init__(self, kind: str, name: str, candidates: Sequence[str]) -> None:
        self.kind, self.name, self.candidates = kind, name, tuple(candidates)
        super().__init__(
            f"{kind} name {name!r} fits {len(candidates)} files: {', '.join(candidates)}. "
            "Give the path with its folder."
        )


class ConfigError(LoomError, ValueError):
    """Settings that cannot work; lists every fault at once."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where, self.faults = where, tuple(faults)
        super().__init__(f"{where}: " + "; ".join(faults))


class ConversionError(LoomError, ValueError):
    """A module of a LoRA that another format has no way to say."""

    def __init__(self, file: str, format: str, type: str, module: str, why: str) -> None:
        self.file, self.format, self.type, self.module = file, format, type, module
        super().__init__(
            f"{file}: the {type} of {module} cannot be written in the format {format}: {why}. Choose another format."
        )


class CorruptFileError(LoomError, ValueError):
    """A file whose bytes are not what its format promises."""

    def __init__(self, file: str, what: str, hint: str = "Download or copy the file again.") -> None:
        self.file, self.what = file, what
        super().__init__(f"{file}: {what}. {hint}")


class NonFiniteError(LoomError, ValueError):
    """A tensor holds NaN or infinity where a number is needed."""

    def __init__(self, file: str, key: str, count: int, total: int) -> None:
        self.file, self.key, self.count, self.total = file, key, count, total
        super().__init__(
            f"{file}: {key}: {count} of {total} values are NaN or infinite. The file is damaged or its training "
            f"diverged; use an earlier save of it."
        )


class MissingExtraError(LoomError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{purpose} needs the package {package!r}. "
            f'Run `pip install ".[{extra}]"` in the folder of your clone of LoRA Loom.'
        )


class UnknownArchitectureError(LoomError, ValueError):
    """A file is for no model family in ``ARCHITECTURES``; ``nearest`` is the one that takes most of it."""

    def __init__(
        self,
        file: str,
        nearest: str,
        fitting: int,
        total: int,
        why: str,
        known: Sequence[str],
        says: str = "",
    ) -> None:
        self.file, self.nearest, self.fitting, self.total = file, nearest, fitting, total
        self.known, self.says = tuple(known), says
        claim = f"; its metadata says {says}" if says else ""
        near = (
            f"{nearest} comes nearest: {fitting} of {total} modules fit" if fitting else f"none of {total} modules fits"
        )
        super().__init__(
            f"{file}: made for a model that is not known{claim}: {near} ({why}). "
            f"{len(known)} models are known (docs/SUPPORTED.md): use a LoRA for one of these, or report the file, so "
            f"that its family can be added."
        )


class UnknownCheckpointError(LoomError, ValueError):
    """The keys and shapes of a checkpoint fit no model family in ``ARCHITECTURES``."""

    def __init__(self, file: str, example: str, known: Sequence[str], hint: str = "") -> None:
        self.file, self.example, self.known = file, example, tuple(known)
        super().__init__(
            f"{file}: not a checkpoint of a known model; its keys look like {example!r}; {len(known)} models are known "
            f"(docs/SUPPORTED.md). {hint or 'Give a checkpoint of one of these.'}"
        )


class OutputExistsError(LoomError, FileExistsError):
    """A file that would be written is there already."""

    def __init__(self, file: str, hint: str = "Choose another name, or allow overwriting.") -> None:
        self.file = file
        super().__init__(f"{file}: is there already. {hint}")


class DiskFullError(LoomError, OSError):
    """There is no room for a file."""

    def __init__(self, file: str, needed: int, free: int) -> None:
        self.file, self.needed, self.free = file, needed, free
        super().__init__(
            f"{file}: needs {needed:,} bytes of disk, {free:,} are free. Make room, or write to another disk."
        )
