"""The words that make a LoRA show, from the sources that there are, in the order of trust.

1. the trigger phrase in the file's own header (``modelspec.trigger_phrase``);
2. what stands beside the file (``sidecars``, in the order of ``READERS``);
3. only where neither says anything, a guess: tags of the training captions that stand in every image, or the name
   of the training folder (``metadata``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from .metadata import read_metadata
from .sidecars import Sidecar, read_sidecars
from .untrusted import words


class FoundWords(NamedTuple):
    """Trigger words, and what could not be read on the way, for the user."""

    words: list[str]
    notes: list[str]


def trigger_words(path: str | os.PathLike[str] | None, metadata: Mapping[str, str]) -> list[str]:
    """Words for the prompt, each once.

    Args:
        path: of the file, for what stands beside it; None for tensors that are in memory.
        metadata: of the file's header.

    >>> trigger_words(None, {"modelspec.trigger_phrase": "ink style, bold"})
    ['ink style', 'bold']
    """
    return find_words(path, metadata).words


def find_words(path: str | os.PathLike[str] | None, metadata: Mapping[str, str]) -> FoundWords:
    """As ``trigger_words``, with the notes on headers and sidecars that could not be read."""
    header = read_metadata(metadata)
    beside = Sidecar() if path is None else read_sidecars(path)
    found = words([*header.trigger_words, *beside.trigger_words]) or header.frequent_tags
    return FoundWords(list(found), [*header.notes, *beside.notes])
