"""A trained adapter becomes a file: written beside its place, read back and compared, and only then put there.

The names and tensors are ``lora_core.convert``'s, as for any conversion. Embeddings that were trained in the same run
are ``bundle_emb.<token>.<encoder>`` in the file, and files of their own beside it where the format has no place for
them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...convert import convert, write_conversion
from ...formats import FORMATS
from ...io import Entry, TensorDict, TensorFile, file_hashes, stream_safetensors
from ...io.atomic import sync_folder
from ...io.dtypes import NAMES
from ...io.writer import build_header
from ...merge.dtypes import CASTS
from ...stack import Adapter
from ...types import ModuleKey
from .checking import CheckReport, check_embeddings, check_saved
from .facts import old_hash

Embeddings = Mapping[str, Mapping[str, Tensor]]
_PENDING = "0" * 64
# Of values that are not zero, the share that fp16 may flush to zero: a normal distribution loses as many when its
# deviation is 2e-5, and factors of a LoRA that has learned something are a hundred times larger.
MOST_FLUSHED = 1e-3
_BUNDLED = (
    "diffusers' load_lora_weights takes no file that has embeddings in it, ComfyUI and A1111 do: with output.format = "
    '"diffusers" they are files of their own'
)
# Of inputs: as PEFT has them, and as files do.
_ROTATIONS = ("peft-oft", "oft2")


@dataclass(frozen=True, slots=True)
class SavedLora:
    """What was written.

    Args:
        path: the file; the folder in PEFT's format.
        files: all of them, embeddings beside it included.
        check: what the comparison found; None where there was nothing to compare with.
        warnings: lines for the user.
    """

    path: Path
    files: tuple[Path, ...]
    check: CheckReport | None
    warnings: tuple[str, ...]


def save_lora(
    adapter: Adapter,
    embeddings: Embeddings,
    path: Path,
    format: str = "kohya",
    dtype: str = "fp16",
    metadata: Mapping[str, str] | None = None,
    *,
    deltas: Mapping[ModuleKey, Tensor] | None = None,
    weight_of: Callable[[ModuleKey], Tensor] | None = None,
) -> SavedLora:
    """Write a LoRA over the one that may be there; on any error the old one stays.

    Args:
        adapter: as trained, of tensors in memory.
        embeddings: token -> name of the encoder (``clip_l``) -> (vectors, width).
        path: ``*.safetensors``, or a folder for PEFT's format.
        format: one of ``convert.WRITERS``.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
        metadata: of ``metadata``; hashes are added.
        deltas: what PEFT says the change of each module is; given, the file is read back and compared (``checking``).
        weight_of: weights of the base, for types whose change depends on them.

    Raises:
        NotAsTrainedError: the file does not do what was trained.
        NonFiniteError: a factor is NaN or infinite.
        as ``convert_lora``.
    """
    if not adapter.deltas:
        raise ValueError("an adapter without a module; embeddings alone are written by save_embeddings")
    source = TensorDict(
        {f"{token}.{encoder}": tensor for token, by in embeddings.items() for encoder, tensor in by.items()}
    )
    bundled = replace(
        adapter,
        embeddings={
            token: {encoder: source[f"{token}.{encoder}"] for encoder in by} for token, by in embeddings.items()
        },
    )
    made = convert(bundled, format, dtype)
    writing = FORMATS.get(format).writing
    nothing: Embeddings = {}
    apart = nothing if writing is not None and writing.embedding is not None else embeddings
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    partial = path.with_name(f"{_partial(path)}{secrets.token_hex(4)}")
    try:
        partial.mkdir()

        def describe(stated: Mapping[str, str]) -> Callable[[Path | None], Mapping[str, str]]:
            return hashed({**(metadata or {}), **stated})

        write_conversion(bundled, made, partial / path.name, describe)
        report = None
        if deltas is not None:
            inside = nothing if apart else embeddings
            report = check_saved(
                partial / path.name, deltas, architecture=adapter.architecture, embeddings=inside, weight_of=weight_of
            )
        check_embeddings(save_embeddings(apart, partial / path.name, dtype), apart)
        files = _put(partial, path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    lines = (
        _flushed(adapter, embeddings, dtype),
        report.warning if report else "",
        _passed_over(adapter),
        _BUNDLED if embeddings and not apart else "",
    )
    return SavedLora(path, files, report, tuple(line for line in lines if line))


def save_embeddings(embeddings: Embeddings, beside: Path, dtype: str = "fp32") -> tuple[Path, ...]:
    """Write each token's embedding to a file of its own, ``<stem>.<token>.safetensors``, or into a PEFT folder.

    One encoder's tensor is under the token's name, which ComfyUI, A1111 and diffusers' ``load_textual_inversion`` read;
    those of several are under the encoders' names (``clip_l``, ``clip_g``), as SDXL's embeddings are.
    """
    files: list[Path] = []
    folder = beside.suffix != ".safetensors"
    for token, by in embeddings.items():
        stem = _file_name(token)
        file = beside / f"{stem}.safetensors" if folder else beside.with_name(f"{beside.stem}.{stem}.safetensors")
        named = {token: next(iter(by.values()))} if len(by) == 1 else by
        cast = {key: tensor.detach().cpu().to(CASTS[dtype]).contiguous() for key, tensor in named.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        stream_safetensors(file, _entries(cast), {"format": "pt"}, overwrite=True)
        files.append(file)
    return tuple(files)


def hashed(metadata: Mapping[str, str]) -> Callable[[Path | None], Mapping[str, str]]:
    """The metadata with the hashes of the tensors' bytes, as a function of the written file; zeros before (None).

    ``modelspec.hash_sha256``, ``sshs_model_hash`` (AutoV3), and ``sshs_legacy_hash`` as kohya's scripts compute it:
    of the file as it would be with ``ss_*`` alone for metadata. Files under 1 MiB have no such bytes and get none.
    """

    def describe(written: Path | None) -> Mapping[str, str]:
        body = _PENDING if written is None else file_hashes(written).body or _PENDING
        legacy = "0" * 8 if written is None else _legacy(written, metadata)
        found = {"modelspec.hash_sha256": f"0x{body}", "sshs_model_hash": body, "sshs_legacy_hash": legacy}
        return {**metadata, **{key: text for key, text in found.items() if text}}

    return describe


def _legacy(written: Path, metadata: Mapping[str, str]) -> str:
    file = TensorFile(written)
    entries = [Entry(ref.name, ref.dtype, ref.shape, ref) for ref in file.values()]
    plain = build_header(entries, {key: text for key, text in metadata.items() if key.startswith("ss_")})
    start = file.data_start
    file.close()

    def read(position: int, length: int) -> bytes:
        ahead = plain[position : position + length]
        with written.open("rb") as handle:
            handle.seek(start + max(0, position - len(plain)))
            return ahead + handle.read(length - len(ahead))

    return old_hash(read)


def _flushed(adapter: Adapter, embeddings: Embeddings, dtype: str) -> str:
    """A warning where numbers are too small for fp16, whose smallest is 6e-8: "" elsewhere."""
    if dtype != "fp16":
        return ""
    lost, total = flushed(
        [
            *(ref.load() for _, delta in adapter.deltas for ref in delta.tensors),
            *(tensor for by in embeddings.values() for tensor in by.values()),
        ]
    )
    if lost <= MOST_FLUSHED * total:
        return ""
    return (
        f"{100 * lost / total:.2g} % of the trained numbers are too small for fp16 and became 0 in the file: save with "
        f'output.dtype = "bf16" or "fp32", and look whether it has learned anything'
    )


def _passed_over(adapter: Adapter) -> str:
    """A warning where a host's own loader takes nothing of the file: "" elsewhere."""
    if not any(delta.type in _ROTATIONS for _, delta in adapter.deltas):
        return ""
    return (
        "ComfyUI's own loader passes over rotations of inputs (PEFT's OFT): use LoRA Loom's loader, or merge the file "
        "into a checkpoint"
    )


def flushed(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """(values that are not zero and become it in fp16, values that are not zero)."""
    lost = total = 0
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() > 1:  # alphas stay float32
            there = tensor != 0
            total += int(there.sum())
            lost += int((there & (tensor.to(torch.float16) == 0)).sum())
    return lost, total


def _put(partial: Path, folder: Path) -> tuple[Path, ...]:
    """Move the files to their places, the LoRA's own last, so that what lies beside it is never older."""
    found = sorted((path for path in partial.rglob("*") if path.is_file()), key=lambda path: (-len(path.stem), path))
    placed: list[Path] = []
    for path in found:
        target = folder / path.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        sync_folder(target.parent)
        placed.append(target)
    return tuple(placed)


def _partial(path: Path) -> str:
    return f".{path.name}.saving-"


def _remove_leftovers(path: Path) -> None:
    """Of saves that were killed."""
    start = _partial(path)
    for other in path.parent.iterdir():
        if other.name.startswith(start):
            shutil.rmtree(other, ignore_errors=True)


def _file_name(token: str) -> str:
    """A token as part of a file name: ``<s1>`` -> ``s1``; Windows has no ``<`` in names."""
    return re.sub(r"[^\w-]+", "_", token).strip("_") or "token"


def _entries(tensors: Mapping[str, Tensor]) -> list[Entry]:
    return [
        Entry(key, NAMES[tensor.dtype], tuple(tensor.shape), lambda tensor=tensor: tensor)
        for key, tensor in tensors.items()
    ]
