"""The nouns of LoRA Loom: where a change goes, what a file said, and what became of each tensor.

``ModuleKey`` names a place in a model without any prefix of a file or a host; ``Target`` adds the
parameter and, where a file describes part of a fused matrix, the slice. ``MappingReport`` accounts for
every tensor of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DENOISER = "denoiser"
TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"
TEXT_ENCODER_3 = "text_encoder_3"
VAE = "vae"
TEXT_ENCODERS = (TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODER_3)
COMPONENTS = (DENOISER, *TEXT_ENCODERS)

Shape = tuple[int, ...]


class ModuleKey(NamedTuple):
    """A place in a model: ``ModuleKey("denoiser", "input_blocks.1.1.proj_in")``."""

    component: str
    path: str


class Slice(NamedTuple):
    """Part of a parameter along one dimension, as the host writes it: (dim, start, length)."""

    dim: int
    start: int
    length: int


class Target(NamedTuple):
    """What a delta changes: a parameter of a module, or a slice of it."""

    module: ModuleKey
    parameter: str = "weight"
    slice: Slice | None = None

    @property
    def whole(self) -> Target:
        """The same parameter without the slice: patches are made per whole parameter."""
        return Target(self.module, self.parameter)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A tensor whose name fits a module and whose shape does not; ``expected`` is a shape or says what is wanted."""

    key: str
    expected: object
    got: Shape


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """One adapted module of a file, for ``loom inspect --modules``."""

    name: str
    target: Target
    type: str
    rank: int | None
    alpha: float | None


@dataclass(frozen=True, slots=True)
class MappingReport:
    """What became of each tensor of one file.

    Every key of the file is in exactly one of ``used``, ``unmatched``, ``ignored`` and ``misfit``.

    Args:
        file: name to show, without folders of the machine.
        format: name in ``FORMATS``.
        architecture: name in ``ARCHITECTURES``; the base that the file was made for.
        used: keys that take part in a delta.
        unmatched: keys that no module of the architecture takes, with the reason.
        ignored: keys left out on purpose, with the reason.
        misfit: keys whose shape does not fit the module of that name.
        modules: the adapted modules.
        left: names of modules in the file of which nothing is used, with the reason.
    """

    file: str
    format: str
    architecture: str
    used: tuple[str, ...]
    unmatched: Mapping[str, str] = field(default_factory=dict[str, str])
    ignored: Mapping[str, str] = field(default_factory=dict[str, str])
    misfit: tuple[Misfit, ...] = ()
    modules: tuple[ModuleReport, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def total(self) -> int:
        """Number of tensors in the file."""
        return len(self.used) + len(self.unmatched) + len(self.ignored) + len(self.misfit)

    @property
    def complete(self) -> bool:
        """True when nothing was left over without a reason."""
        return not self.unmatched and not self.misfit
