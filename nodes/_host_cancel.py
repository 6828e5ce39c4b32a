"""The host's cancel button, in the engine's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from comfy.model_management import InterruptProcessingException

from ..lora_core.train.stops import Cancelled


@contextmanager
def cancellable() -> Iterator[None]:
    """A block in which the host may look for its button: its exception is no ``Exception``, and nobody would save."""
    try:
        yield
    except InterruptProcessingException:
        raise Cancelled from None
