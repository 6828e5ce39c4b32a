"""An adapter is what one file holds; a stack is an ordered list of adapters with strengths."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from .adapters import Delta
from .io import TensorRef
from .types import DENOISER, MappingReport, Target


@dataclass(frozen=True, slots=True)
class Adapter:
    """All deltas of one file.

    Args:
        deltas: where each change goes, in the order of the file.
        metadata: of the file's header.
        report: what became of each tensor; it carries file, format and architecture names.
        embeddings: token -> {name of the text encoder (``Component.encoder``) -> tensor (vectors, width)}; they are
            bundled with the LoRA and change no weight.
        digest: identifies the content for caches: path, size and time of a file, otherwise a text that no other
            adapter has.
    """

    deltas: tuple[tuple[Target, Delta], ...]
    metadata: Mapping[str, str]
    report: MappingReport
    embeddings: Mapping[str, Mapping[str, TensorRef]] = field(default_factory=dict[str, Mapping[str, TensorRef]])
    digest: str = field(default_factory=lambda: uuid4().hex)

    @property
    def file(self) -> str:
        return self.report.file

    @property
    def architecture(self) -> str:
        return self.report.architecture


@dataclass(frozen=True, slots=True)
class Strengths:
    """What the user sets for one adapter.

    Args:
        model: strength of the denoiser.
        clip: strength of all text encoders.
        components: strengths of single components, instead of the two above.
        blocks: block name (from the architecture) -> factor on the component's strength; a block that is
            not named has factor 1.

    >>> Strengths(model=0.8, blocks={"mid": 0.0}).of("denoiser", "mid")
    0.0
    """

    model: float = 1.0
    clip: float = 1.0
    components: Mapping[str, float] = field(default_factory=dict[str, float])
    blocks: Mapping[str, float] = field(default_factory=dict[str, float])

    def of(self, component: str, block: str) -> float:
        """Strength of a module in this block of this component."""
        default = self.model if component == DENOISER else self.clip
        return self.components.get(component, default) * self.blocks.get(block, 1.0)


@dataclass(frozen=True, slots=True)
class StackEntry:
    """An adapter at its strengths."""

    adapter: Adapter
    strengths: Strengths = Strengths()


@dataclass(frozen=True, slots=True)
class Stack:
    """Adapters in the order in which they are applied."""

    entries: tuple[StackEntry, ...] = ()

    @property
    def digest(self) -> str:
        """Identifies files, order and strengths: equal digests change a model equally."""
        text = repr(
            [
                (
                    entry.adapter.digest,
                    entry.strengths.model,
                    entry.strengths.clip,
                    sorted(entry.strengths.components.items()),
                    sorted(entry.strengths.blocks.items()),
                )
                for entry in self.entries
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()
