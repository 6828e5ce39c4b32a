"""A checkpoint as the engine sees it: tensors under single-file keys, and where each parameter lies.

``open_checkpoint`` takes a single file, whole or with one component only, or the folder of a diffusers
pipeline, whose tensors appear under the names and shapes of a single-file checkpoint. Only headers are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..architectures import Architecture, Place
from ..architectures.spec import sliced_shape
from ..io import TensorRef
from ..io.dtypes import TORCH_DTYPES
from ..quantised import Quantised
from ..types import Shape, Slice, Target


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of a source, and its place in a tensor of the checkpoint.

    Args:
        ref: the tensor.
        slice: the part of the checkpoint's tensor that it is; None for all of it.
        transposed: whether the checkpoint has it transposed.
        rows: the part of the source's tensor that is meant; None for all of it.
    """

    ref: TensorRef
    slice: Slice | None = None
    transposed: bool = False
    rows: Slice | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a checkpoint, not yet read.

    Args:
        shape: in the checkpoint; the same numbers may have another shape in the source.
        dtype: name of the safetensors header.
        pieces: what it is made of, one in a single file.
    """

    shape: Shape
    dtype: str
    pieces: tuple[Piece, ...]

    @property
    def whole(self) -> TensorRef | None:
        """The one tensor whose bytes are this tensor's, or None where it has to be put together."""
        first = self.pieces[0]
        alone = len(self.pieces) == 1 and first.slice is None and first.rows is None
        return first.ref if alone and not first.transposed else None

    def load(self) -> torch.Tensor:
        """Read it; it may share memory with the file: never write to it."""
        whole = self.whole
        if whole is not None:
            return whole.load().reshape(self.shape)
        tensor = torch.empty(self.shape, dtype=TORCH_DTYPES[self.dtype])
        for piece in self.pieces:
            part = tensor if piece.slice is None else tensor.narrow(*piece.slice)
            loaded = piece.ref.load() if piece.rows is None else piece.ref.load().narrow(*piece.rows)
            part.copy_(loaded.T if piece.transposed else loaded)
        return tensor


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint.

    Args:
        label: name to show, without folders of the machine.
        architecture: found by names and shapes.
        metadata: of the file; of a folder, its configurations (``folder.CONFIGS_KEY``).
        tensors: key -> tensor, in the order of the source.
        places: whole target -> where it lies, for every parameter that is there.
        files: what it was read from: name to show -> path.
        left_out: tensors of a folder that a single-file checkpoint has no place for -> reason.
        quantised: which of the tensors are quantised weights, and how.
        originals: of a single file whose tensors have other names and cuts than ``tensors``: those under its own
            names, which are what is written, so that it stays loadable by what loaded it.
    """

    label: str
    architecture: Architecture
    metadata: Mapping[str, str]
    tensors: Mapping[str, Stored]
    places: Mapping[Target, Place]
    files: Mapping[str, Path]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    quantised: Quantised = field(default_factory=Quantised)
    originals: Mapping[str, TensorRef] = field(default_factory=dict[str, TensorRef])

    def shape_of(self, target: Target) -> Shape | None:
        """Shape of a whole parameter as the model has it, None where the checkpoint has none."""
        place = self.places.get(target)
        if place is None:
            return None
        layer = self.quantised.layers.get(place.key)
        shape = layer.shape if layer else self.tensors[place.key].shape
        if place.slice is not None:
            shape = sliced_shape(shape, place.slice)
        return shape[::-1] if place.transposed else shape

    @property
    def components(self) -> frozenset[str]:
        """The denoiser and text encoders that are there."""
        return frozenset(target.module.component for target in self.places)

    def load(self, key: str) -> torch.Tensor:
        """The tensor under a single-file key."""
        return self.tensors[key].load()


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a single-file checkpoint or a pipeline folder; only headers are read.

    Raises:
        FileNotFoundError, CorruptFileError: it cannot be read.
        UnknownCheckpointError: its names and shapes are of no model in ``ARCHITECTURES``.
    """
    # Both build on the types above.
    from .folder import open_folder
    from .single_file import open_file

    path = Path(path)
    return open_folder(path) if path.is_dir() else open_file(path)
