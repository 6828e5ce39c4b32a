"""The file that a LoRA's name means, out of those that are there.

Names come from graphs of other machines: with another slash, without the extension, without the folder, or for a
file that was renamed since. In this order: the exact name, the name without its extension, the base name where one
file alone has it, and the AutoV3 hash that the graph kept. Nothing here touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .errors import AmbiguousNameError, ConfigError, LoomError, UnknownNameError, nearest

KIND = "LoRA"
EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")

# The hash of no bytes at all: files without tensors share it, so it finds nothing.
_EMPTY_BODY = "e3b0c44298fc"
_SHORTEST_HASH = 8


def resolve_name(
    name: str,
    available: Sequence[str],
    hash: str | None = None,
    hash_of: Callable[[str], str | None] | None = None,
) -> str:
    """The entry of ``available`` that a name means, spelt as it is there.

    Args:
        name: relative to the loras folder, with / or \\; "" where the hash alone says what is meant.
        available: names of the files that are there.
        hash: AutoV3 of the file that is wanted, if it is known; at least 8 hex digits.
        hash_of: AutoV3 of an available file; asked only when the name finds nothing, or more than one file.

    Raises:
        ConfigError: the name is a path out of the folder.
        AmbiguousNameError: a base name that several files have; lists them.
        UnknownNameError: no such file; names the nearest.

    >>> resolve_name("ink", ["styles/ink.safetensors", "rain.safetensors"])
    'styles/ink.safetensors'
    """
    files = {entry.replace("\\", "/"): entry for entry in available}

    def same(paths: list[str]) -> list[str]:
        return _by_hash(paths, hash, lambda path: hash_of(files[path]) if hash_of else None)

    if hash and not name.strip():
        if found := same(list(files)):
            return files[found[0]]
        raise UnknownNameError(KIND, f"hash {hash}", sorted(available), "No file has this hash: get it, or choose one.")
    wanted = _inside(name)
    if wanted in files:
        return files[wanted]
    stem = _stem(wanted)
    for matches in (
        [path for path in files if _stem(path) == stem],
        [path for path in files if _base(path) == _base(wanted)],
        [path for path in files if _base(_stem(path)) == _base(stem)],
    ):
        if len(matches) == 1:
            return files[matches[0]]
        if matches:
            found = same(matches)
            if len(found) == 1:
                return files[found[0]]
            raise AmbiguousNameError(KIND, name, sorted(files[path] for path in matches))
    if found := same(list(files)):
        # Files with one hash hold the same tensors: any of them is right.
        return files[found[0]]
    raise _unknown(name, stem, sorted(available))


def _inside(name: str) -> str:
    """The name with forward slashes; an error where it leads out of the folder."""
    path = name.strip().replace("\\", "/")
    if not path:
        raise ConfigError(KIND, ["no name is given: choose a file"])
    if path.startswith(("/", "~/")) or re.match(r"[A-Za-z]:", path) or ".." in path.split("/") or "\0" in path:
        fault = f"{name!r} is a path, expected a name inside the loras folder such as 'styles/ink.safetensors'"
        raise ConfigError(KIND, [fault])
    return re.sub(r"^(\./)+", "", re.sub(r"/+", "/", path))


def _stem(path: str) -> str:
    """Without a model file's extension; other dots are part of the name (``ink_v1.5``)."""
    return next((path[: -len(end)] for end in EXTENSIONS if path.lower().endswith(end)), path)


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _by_hash(paths: Sequence[str], hash: str | None, hash_of: Callable[[str], str | None]) -> list[str]:
    """The paths whose AutoV3 begins as the wanted one, or the other way round."""
    wanted = (hash or "").strip().lower().removeprefix("0x")
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST_HASH},64}}", wanted) or wanted.startswith(_EMPTY_BODY):
        return []
    found: list[str] = []
    for path in sorted(paths):
        try:
            actual = (hash_of(path) or "").lower()
        except (LoomError, OSError):
            continue  # a file that cannot be read is not the one; whoever loads it hears why
        if len(actual) >= _SHORTEST_HASH and (actual.startswith(wanted) or wanted.startswith(actual)):
            found.append(path)
    return found


def _unknown(name: str, stem: str, available: Sequence[str]) -> UnknownNameError:
    """The error, with the nearest by base name where the whole names are too different to be near."""
    error = UnknownNameError(KIND, name, available)
    if error.nearest or not available:
        return error
    by_base = {_base(_stem(path.replace("\\", "/"))): path for path in available}
    near = nearest(_base(stem), list(by_base))
    return UnknownNameError(KIND, name, available, f"Did you mean {by_base[near]!r}?") if near else error
