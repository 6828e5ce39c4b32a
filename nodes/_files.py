"""Names in the graph <-> files, through the host's ``folder_paths`` alone: only its folders are read and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import folder_paths

from ..lora_core.errors import ConfigError, CorruptFileError, LoomError, UnknownNameError
from ..lora_core.io import file_hashes, open_tensors, state_of
from ..lora_core.metadata import read_metadata
from ..lora_core.names import resolve_name
from ..lora_core.rows import StackItem
from ..lora_core.sidecars import sidecar_files

PACK = Path(__file__).resolve().parent.parent
DEMO_MODEL = PACK / "demo" / "model"
DEMO_LORAS = PACK / "demo" / "loras"
BUILT_IN = "Loom Demo (built in)"

# A LoRA as a graph names it: name and AutoV3 hash ("" where there is none).
Named = tuple[str, str]


def add_demo_loras() -> None:
    """Make the demo's LoRAs selectable, so that the example workflows run on a fresh installation."""
    if DEMO_LORAS.is_dir():
        folder_paths.add_model_folder_path("loras", str(DEMO_LORAS))


def runs_folder() -> Path:
    """Where LoRA Train keeps what runs write besides their LoRAs."""
    return Path(folder_paths.get_output_directory()) / "loom"


def lora_names() -> list[str]:
    """All files of the host's loras folders, subfolders included."""
    return folder_paths.get_filename_list("loras")


def lora_name(name: str, autov3: str = "") -> str:
    """The name in the host's list that is meant.

    Raises:
        ConfigError: the name is a path out of the folders.
        UnknownNameError: there is none; it names the nearest one.
        AmbiguousNameError: a short name fits several files.
    """
    return resolve_name(name, lora_names(), autov3, partial(_autov3, autov3.lower()))


def lora_path(name: str, autov3: str = "") -> str:
    """The file of a LoRA; errors as ``lora_name``."""
    return _full_path("loras", "LoRA", lora_name(name, autov3))


def resolved(item: StackItem) -> StackItem:
    """With the file's name in the loras folders, for a LORA_STACK that is handed on.

    What reads it elsewhere knows neither short names nor hashes. Errors as ``lora_name``.
    """
    name, model, clip = item
    return StackItem(lora_name(name, item.hash), model, clip, item.blocks, item.hash, item.schedule)


def check_loras(names: Sequence[Named]) -> bool | str:
    """For validation: True, or what is wrong with the names."""
    try:
        for name, autov3 in names:
            lora_path(name, autov3)
    except LoomError as error:
        return error.message
    return True


def fingerprint(names: Sequence[Named]) -> str:
    """Changes when a file does, or its settings or sidecars beside it, so that the host runs the node again."""
    paths = [lora_path(name, autov3) for name, autov3 in names]
    beside = [place for path in paths for place in sidecar_files(path)]
    return "|".join([*(state_of(path) for path in paths), *(_state(str(path)) for path in beside)])


def demo_checkpoints() -> list[str]:
    """What Demo Model can load: the built-in model, then the checkpoints folders."""
    return [BUILT_IN, *folder_paths.get_filename_list("checkpoints")]


def checkpoint_path(name: str) -> Path:
    """The file, or the built-in model's folder."""
    if name == BUILT_IN:
        return DEMO_MODEL
    names = folder_paths.get_filename_list("checkpoints")
    if name not in names:
        raise UnknownNameError("checkpoint", name, [BUILT_IN, *names])
    return Path(_full_path("checkpoints", "checkpoint", name))


# Models without text encoder and VAE have a folder of their own in the host; its files are listed behind this.
MODELS = "diffusion_models"
_MODELS_LABEL = f"[{MODELS}] "


def merge_sources() -> list[str]:
    """What can be merged into: whole checkpoints, then the files of the diffusion_models folders."""
    return [*demo_checkpoints(), *(_MODELS_LABEL + name for name in folder_paths.get_filename_list(MODELS))]


def merge_source(name: str) -> tuple[Path, str]:
    """The file of one of ``merge_sources``, and the kind of folder that the merged file goes to."""
    if not name.startswith(_MODELS_LABEL):
        return checkpoint_path(name), "checkpoints"
    return model_path(name.removeprefix(_MODELS_LABEL)), MODELS


def model_path(name: str) -> Path:
    """The file of a model alone, by its name in the diffusion_models folders."""
    names = folder_paths.get_filename_list(MODELS)
    if name not in names:
        raise UnknownNameError("model", name, names, f"in the {MODELS} folders")
    return Path(_full_path(MODELS, "model", name))


def check_checkpoint(name: str | None) -> bool | str:
    """For validation: True, or what is wrong with the name. None is a name that is not known yet."""
    try:
        if name is not None:
            checkpoint_path(name)
    except LoomError as error:
        return error.message
    return True


def fingerprint_checkpoint(name: str | None) -> str:
    """As ``fingerprint``, for a checkpoint; the built-in model changes with its weights."""
    if name is None:
        return ""
    path, _ = merge_source(name)
    files = sorted(path.glob("*/*.safetensors")) if path.is_dir() else [path]
    return "|".join(_state(str(file)) for file in files)


def vae_names() -> list[str]:
    """The safetensors files of the host's vae folders; its list also has names that stand for no file."""
    return [name for name in folder_paths.get_filename_list("vae") if name.endswith(".safetensors")]


def vae_path(name: str) -> str:
    """The file of a VAE; ``UnknownNameError`` for a name that is not in the list."""
    if name not in vae_names():
        raise UnknownNameError("VAE", name, vae_names())
    return _full_path("vae", "VAE", name)


def fingerprint_vae(name: str) -> str:
    """As ``fingerprint``, for a VAE."""
    return _state(vae_path(name))


class NewFile(NamedTuple):
    """Where to write, and the name under which the host's loaders will find it."""

    path: Path
    name: str


@contextmanager
def new_file(kind: str, filename: str, suffix: str = ".safetensors") -> Iterator[NewFile]:
    """A new file in the first folder of a kind, counted up as the host's own save nodes do: ``name_00001_``.

    The host makes the subfolder; when nothing gets written into it, because the block fails or is cancelled, it is
    removed again.

    Args:
        kind: of the host's folders, ``"checkpoints"``, ``"diffusion_models"`` or ``"loras"``.
        suffix: "" for what is a folder itself.

    Raises:
        ConfigError: the name leaves the folder, or is none.
    """
    check_filename(filename, kind)
    folders = folder_paths.get_folder_paths(kind)
    # Of diffusion_models the host's first folder is the old "unet".
    folder = next((path for path in folders if os.path.basename(path) == kind), folders[0])
    stem = filename.replace("\\", "/").removesuffix(".safetensors")
    there = {parent for parent in (Path(folder) / stem).parents if parent.exists()} | {Path(folder)}
    where, name, counter, subfolder, _ = folder_paths.get_save_image_path(stem, folder)
    file = f"{name}_{counter:05}_{suffix}"
    try:
        yield NewFile(Path(where) / file, os.path.join(subfolder, file))
    except BaseException:  # the host's cancel is one
        _remove_empty(Path(where), there)
        raise


def _remove_empty(folder: Path, keep: set[Path]) -> None:
    """Remove a folder and those above it, up to one that holds something or is to be kept."""
    with suppress(OSError):  # it holds something
        while folder not in keep:
            folder.rmdir()
            folder = folder.parent


# Not in names of files on Windows; a graph goes from one machine to another.
_FORBIDDEN = frozenset('<>:"|?*')


def check_filename(filename: str, kind: str, what: str = "filename") -> None:
    """``ConfigError`` for a name that is empty, absolute, leaves the folder of its kind, or is none everywhere.

    ``what``: the input that it is from.
    """
    faults: list[str] = []
    path = PurePosixPath(filename.replace("\\", "/"))
    bare = path.name.removesuffix(".safetensors").strip(". ")
    if not filename.strip() or not bare or filename.strip().endswith(("/", "\\")):
        faults.append("it is empty, expected a name such as 'merged' or 'mine/merged'")
    if path.is_absolute() or PureWindowsPath(filename).drive or ".." in path.parts:
        faults.append(f"{filename!r} leaves the {kind} folder, expected a name inside it")
    elif odd := sorted(_FORBIDDEN & set(filename)):
        faults.append(f"it holds {' '.join(odd)}, which names of files have not everywhere")
    if any(ord(char) < 32 for char in filename):
        faults.append("it holds a control character")
    if faults:
        raise ConfigError(what, faults)


def ask_first(known: Callable[[str], str | None]) -> None:
    """Look hashes up here before a file is read for one: AutoV3 by name, "" for a file that has none, None where it is
    not known."""
    _known.append(known)


# Where hashes are looked up; without the library of the routes, nowhere.
_known: list[Callable[[str], str | None]] = []


def _autov3(wanted: str, name: str) -> str | None:
    """The hash of a file, which is all of it to read; what its header claims is enough to know that it is not meant."""
    for known in _known:
        if (found := known(name)) is not None:
            return found
    path = _full_path("loras", "LoRA", name)
    claimed = read_metadata(open_tensors(path).metadata).autov3
    if claimed and not claimed.startswith(wanted[: len(claimed)]):
        return claimed
    return file_hashes(path).autov3


def _full_path(folder: str, kind: str, name: str) -> str:
    """The file of a name in the host's list, which keeps links that lead nowhere."""
    path = folder_paths.get_full_path(folder, name)
    if path is None or not os.access(path, os.R_OK):
        what = "it was deleted, or is a link to a file that is gone" if path is None else "its permissions forbid it"
        raise CorruptFileError(name, f"this {kind} is in the list, but cannot be read: {what}", "Choose another one.")
    return path


def _state(path: str) -> str:
    state = os.stat(path)
    return f"{path}:{state.st_mtime_ns}:{state.st_size}"
