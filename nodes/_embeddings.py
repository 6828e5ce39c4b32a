"""Embeddings that come inside a LoRA file: a prompt names them as it names those of the host's folders.

The host looks for the ``ink`` of ``embedding:ink`` in the folders that its tokenizers list, one tokenizer a text
encoder. So each embedding is written to a folder of its own below the host's temporary files, and the CLIP that is
returned has tokenizers that list this folder too.

A name that a file of the user has is the user's: of two files of one name the host takes any. The embedding then
has the LoRA's name in front, ``embedding:style-ink``; the report says what to write.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import comfy.sd1_clip
import folder_paths

from ..lora_core import Adapter
from ..lora_core.io import TensorRef
from ..lora_core.io.writer import Entry, stream_safetensors

FOLDER = "loom_embeddings"
# What the host puts behind a name when it looks for the file, besides nothing.
ENDINGS = ("", ".safetensors", ".pt", ".bin")
LONGEST = 64
# OneTrainer's second kind of embedding, which is put in place of what the encoder returns.
OUTPUT = "_out"


@dataclass(frozen=True, slots=True)
class Embedding:
    """One embedding of a file.

    Args:
        token: its name in the file.
        prompt: what a prompt says for it, ``"embedding:ink"``; None where it cannot be used.
        notes: why it, or a part of it, cannot be used, or has another name.
    """

    token: str
    prompt: str | None
    notes: tuple[str, ...] = ()


def give_embeddings(clip: Any, adapters: Sequence[Adapter]) -> tuple[Any, list[list[Embedding]]]:
    """A clone of the CLIP that knows the embeddings of the files, and what they are called, file by file.

    Args:
        clip: the host's, or None; without embeddings that it takes it is returned as it came.
    """
    if not any(adapter.embeddings for adapter in adapters):
        return clip, [[] for _ in adapters]
    if clip is None:
        why = ("no CLIP is connected",)
        return clip, [[Embedding(token, None, why) for token in adapter.embeddings] for adapter in adapters]
    found: list[list[Embedding]] = []
    tokenizer = getattr(clip, "tokenizer", None)
    for adapter in adapters:
        found.append([])
        for token, encoders in adapter.embeddings.items():
            tokenizer, embedding = _give(tokenizer, adapter.file, token, encoders)
            found[-1].append(embedding)
    if tokenizer is not getattr(clip, "tokenizer", None):
        clip = clip.clone()
        clip.tokenizer = tokenizer
    return clip, found


def _give(tokenizer: Any, file: str, token: str, encoders: Mapping[str, TensorRef]) -> tuple[Any, Embedding]:
    """A tokenizer that knows one embedding more."""
    parts = {part.embedding_key: part for part in _parts(tokenizer)}
    vectors: dict[str, TensorRef] = {}
    notes: list[str] = []
    for encoder, ref in encoders.items():
        key = _meant(encoder, ref, parts)
        if key is None:
            notes.append(_why_not(encoder, ref, parts))
        else:
            vectors.setdefault(key, ref)
    if not vectors:
        return tokenizer, Embedding(token, None, tuple(notes))
    listed = list(dict.fromkeys(folder for part in parts.values() for folder in _listed(part)))
    plain = prompt_name(token)
    for name in _names(plain, file):
        path = _path(name, vectors)
        if not _taken(name, listed, path.parent):
            break
    if name != plain:
        notes.append(f"embedding:{plain} is another one, of an embeddings folder or of a LoRA before this one")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [Entry(key, ref.dtype, ref.shape, ref) for key, ref in vectors.items()]
        stream_safetensors(path, entries, overwrite=True)
    return _listing(tokenizer, vectors, str(path.parent)), Embedding(token, f"embedding:{name}", tuple(notes))


def prompt_name(token: str) -> str:
    """What can stand for a token behind ``embedding:``, where the host ends a name at a space, ``<`` and ``[``.

    >>> prompt_name("ema yasuhara"), prompt_name("<s1>")
    ('ema_yasuhara', 's1')
    """
    return re.sub(r"[^\w.-]+", "_", token).strip("._-")[:LONGEST] or "embedding"


def _names(plain: str, file: str) -> Iterator[str]:
    """Names to try, the best first."""
    yield plain
    own = f"{prompt_name(Path(file).stem)}-{plain}"
    yield own
    yield from (f"{own}_{number}" for number in count(2))


def _meant(encoder: str, ref: TensorRef, parts: Mapping[str, Any]) -> str | None:
    """The host's name of the encoder that takes these vectors: the one they are called for, or the only one of their
    width, as files of one encoder say ``string_to_param.*`` or ``text_encoder``, and SD 2's is ``clip_h``."""
    if encoder.endswith(OUTPUT) or not ref.shape:
        return None
    fitting = [key for key, part in parts.items() if part.embedding_size == ref.shape[-1]]
    if encoder in parts:
        return encoder if encoder in fitting else None
    return fitting[0] if len(fitting) == 1 else None


def _why_not(encoder: str, ref: TensorRef, parts: Mapping[str, Any]) -> str:
    if encoder.endswith(OUTPUT):
        return f"{encoder} takes the place of what the encoder returns, for which ComfyUI has no way"
    width = ref.shape[-1] if ref.shape else 1
    there = ", ".join(f"{key} ({part.embedding_size} wide)" for key, part in parts.items())
    return f"{encoder} is for an encoder {width} wide, this CLIP has {there or 'none that takes embeddings'}"


def _path(name: str, vectors: Mapping[str, TensorRef]) -> Path:
    """The file of an embedding: in a folder of its own, which is called by what it holds."""
    digest = hashlib.sha256(name.encode())
    for key, ref in vectors.items():
        digest.update(repr((key, ref.dtype, ref.shape)).encode())
        digest.update(ref.load().float().contiguous().numpy().tobytes())
    return Path(folder_paths.get_temp_directory()) / FOLDER / digest.hexdigest()[:32] / f"{name}.safetensors"


def _taken(name: str, folders: Sequence[str], own: Path) -> bool:
    """Whether the host would find another file under this name; it looks into subfolders too."""
    inside = (folder for top in folders if Path(top) != own for folder, _, _ in os.walk(top, followlinks=True))
    return any(os.path.isfile(os.path.join(folder, name + ending)) for folder in inside for ending in ENDINGS)


def _parts(tokenizer: Any) -> Iterator[Any]:
    """The tokenizers that look for embeddings, inside those of several text encoders."""
    if isinstance(tokenizer, comfy.sd1_clip.SDTokenizer):
        yield tokenizer
    else:
        for value in _inner(tokenizer).values():
            yield from _parts(value)


def _inner(tokenizer: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in getattr(tokenizer, "__dict__", {}).items()
        if hasattr(value, "tokenize_with_weights")
    }


def _listed(part: Any) -> list[str]:
    """The folders that a tokenizer lists: none, one or several."""
    folders = part.embedding_directory
    return [folders] if isinstance(folders, str) else list(folders or ())


def _listing(tokenizer: Any, keys: Mapping[str, Any], folder: str) -> Any:
    """A copy of a tokenizer of which the parts of these encoders list one more folder."""
    if isinstance(tokenizer, comfy.sd1_clip.SDTokenizer):
        listed = _listed(tokenizer)
        if tokenizer.embedding_key not in keys or folder in listed:
            return tokenizer
        extended = copy(tokenizer)
        extended.embedding_directory = [*listed, folder]
        return extended
    inner = {name: (value, _listing(value, keys, folder)) for name, value in _inner(tokenizer).items()}
    if all(new is old for old, new in inner.values()):
        return tokenizer
    extended = copy(tokenizer)
    for name, (_, new) in inner.items():
        setattr(extended, name, new)
    return extended
