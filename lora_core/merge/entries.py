"""What a merge writes, tensor by tensor: taken over, computed with its patches, or requantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

import torch

from ..architectures import Place
from ..errors import ConfigError
from ..io import Entry, TensorRef
from ..io.dtypes import TORCH_DTYPES, itemsize
from ..patching import Binding, Patch, Watch, apply_patch, rounded
from ..types import Shape
from . import originals, vae_names
from .dtypes import output_dtype
from .quantised_weights import Requantised, unpacked
from .rounding import Meter, Rounding
from .source import Checkpoint, Stored

_MODEL_PREFIXES = (vae_names.PREFIX, "vae.", "model_ema.")

# What changes one tensor of the checkpoint: patches of disjoint parts of it, each with its place.
_Changes = list[tuple[Patch, Place]]
# float32 and wider hold what was computed.
_EXACT = ("F32", "F64")


class Plan:
    """The tensors of the merged file in their order, and what rounding took from them once they are written.

    Args:
        checkpoint: the source, without quantisation where ``dtype`` is not ``same``.
        binding: the patches.
        dtype: one of ``dtypes.DTYPES``.
        device: where patches are computed.
    """

    def __init__(self, checkpoint: Checkpoint, binding: Binding, dtype: str, device: torch.device | str) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._changes: dict[str, _Changes] = {}
        for target, patch in binding.patches.items():
            place = checkpoint.places[target]
            self._changes.setdefault(place.key, []).append((patch, place))
        self._meters: dict[str, Meter] = {}
        # Wide numbers first as the safetensors library does it, so that every tensor is aligned.
        self.entries = sorted(self._entries(dtype), key=lambda entry: -TORCH_DTYPES[entry.dtype].itemsize)

    @property
    def patched(self) -> int:
        """Weights that change."""
        return len(self._changes)

    def rounding(self) -> dict[str, Rounding]:
        """Key -> error, of the tensors that were rounded."""
        return {key: meter.read() for key, meter in self._meters.items()}

    def _entries(self, dtype: str) -> Iterable[Entry]:
        checkpoint = self._checkpoint
        weights = {place.key for place in checkpoint.places.values()}
        prefixes = (*(part.checkpoint_prefix for part in checkpoint.architecture.components), *_MODEL_PREFIXES)
        requantised = {key: found for key in self._changes if (found := checkpoint.quantised.layers.get(key))}
        parts = {name for layer in requantised.values() for name in layer.keys.values()}
        renamed = {key: stored for key, stored in checkpoint.tensors.items() if _renamed(checkpoint, stored)}
        kinds = {
            key: output_dtype(dtype, key, stored.dtype, stored.shape, weights, prefixes)
            for key, stored in renamed.items()
        }
        yield from self._originals(renamed, kinds, dtype == "same")
        for key, stored in checkpoint.tensors.items():
            if key in renamed:
                continue
            if key in requantised:
                yield from self._requantised(key)
            elif key not in parts:
                written = output_dtype(dtype, key, stored.dtype, stored.shape, weights, prefixes)
                yield self._entry(key, stored, written)

    def _entry(self, key: str, stored: Stored, dtype: str) -> Entry:
        changes = self._changes.get(key, [])
        whole = stored.whole
        if not changes and dtype == stored.dtype and whole is not None:
            return Entry(key, dtype, stored.shape, whole)
        watch = self._meter(key) if changes and dtype not in _EXACT else None

        def compute() -> torch.Tensor:
            result = _apply(stored.load(), changes, TORCH_DTYPES[dtype], self._device, watch)
            _forget(stored, changes)
            return result

        # A patch may give a layer more inputs, one of a whole tensor as the checkpoint stores it.
        shape = changes[0][0].result if _whole(changes) else stored.shape
        return Entry(key, dtype, shape, compute)

    def _originals(self, tensors: Mapping[str, Stored], dtypes: Mapping[str, str], same: bool) -> Iterable[Entry]:
        """The tensors of a source with names and cuts of its own, neighbours where they are parts of one."""
        sources = originals.pieces_by_ref(tensors)
        kinds = {name: found[0][1].ref.dtype if same else dtypes[found[0][0]] for name, found in sources.items()}
        computed = {
            name: found
            for name, found in sources.items()
            if kinds[name] != found[0][1].ref.dtype or any(key in self._changes for key, _ in found)
        }
        uses = Counter(key for found in computed.values() for key, _ in found)
        shared: dict[str, tuple[Shape, originals.Shared]] = {}
        for key, count in uses.items():
            # Parts may be of several dtypes; then each is rounded by itself, once.
            written = {kinds[piece.ref.name] for piece in tensors[key].pieces}
            entry = self._entry(key, tensors[key], written.pop() if len(written) == 1 else "F32")
            compute = entry.content.load if isinstance(entry.content, TensorRef) else entry.content
            shared[key] = (entry.shape, originals.Shared(compute, count))
        for name, found in sources.items():
            first, piece = found[0]
            if name in computed:
                shape = originals.shape_in_source(piece, tensors[first].shape, shared[first][0])
                parts = [(piece, shared[key][1]) for key, piece in found]
                yield Entry(name, kinds[name], shape, partial(originals.joined, shape, kinds[name], parts))
            else:
                yield Entry(name, kinds[name], piece.ref.shape, piece.ref)

    def _requantised(self, key: str) -> Iterable[Entry]:
        """A quantised weight and its scales: computed together, and neighbours in the file where they can be."""
        changes, weight = self._changes[key], unpacked(self._checkpoint, key)
        if any(patch.result != patch.shape for patch, _ in changes):
            fault = f"{key} is quantised, and a LoRA gives it more inputs. Merge with dtype 'fp16' or 'bf16'"
            raise ConfigError(self._checkpoint.label, [fault])

        def patch(dense: torch.Tensor) -> torch.Tensor:
            result = _apply(dense, changes, torch.float32, self._device, None)
            _forget(weight, changes)
            return result

        whole = Requantised(weight, patch, self._meter(key))
        for role, name in weight.layer.keys.items():
            part = weight.parts[role]
            # Scales of wider numbers lie far ahead of the weight; they would have it wait in memory.
            wide = itemsize(part.dtype) > itemsize(weight.parts["weight"].dtype)
            yield Entry(name, part.dtype, part.shape, lambda role=role: whole.take(role), last=wide)

    def _meter(self, key: str) -> Watch:
        return self._meters.setdefault(key, Meter()).add


def _renamed(checkpoint: Checkpoint, stored: Stored) -> bool:
    """Whether it is written under other names; a key of the checkpoint is never the name of such a tensor."""
    return bool(checkpoint.originals) and stored.pieces[0].ref.name in checkpoint.originals


def forget(refs: Iterable[TensorRef]) -> None:
    """Files of many gigabytes pass by: what was read is not kept."""
    for ref in refs:
        ref.source.forget(ref)


def _forget(stored: Stored, changes: _Changes) -> None:
    deltas = (part.delta for patch, _ in changes for part in patch.parts)
    forget([*(piece.ref for piece in stored.pieces), *(ref for delta in deltas for ref in delta.tensors)])


def _whole(changes: _Changes) -> bool:
    """Whether there is one patch, of the tensor as it is stored."""
    return len(changes) == 1 and changes[0][1].slice is None and not changes[0][1].transposed


def _apply(
    stored: torch.Tensor, changes: _Changes, dtype: torch.dtype, device: torch.device | str, watch: Watch | None
) -> torch.Tensor:
    """The tensor with its patches, rounded once."""
    if _whole(changes):
        return apply_patch(stored, changes[0][0], device=device, dtype=dtype, watch=watch)
    result = rounded(stored, dtype)
    if changes and result.data_ptr() == stored.data_ptr():
        result = result.clone()  # never write to the file's map
    for patch, place in changes:
        part, into = (tensor if place.slice is None else tensor.narrow(*place.slice) for tensor in (stored, result))
        if place.transposed:
            part, into = part.T, into.T
        into.copy_(apply_patch(part, patch, device=device, dtype=dtype, watch=watch))
    return result
