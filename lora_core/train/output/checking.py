"""A saved file is read as any file is, and its changes are compared with what PEFT says was trained.

``D`` is the change of a module, a function of the file's tensors ``t``, each of which was rounded by at most ``e``
(half a unit in the last place of its number type). Where ``D`` does not depend on the weight (LoRA, LoHa, LoKr, full
differences), it is a sum of products, so that with absolute values

    |D(t + e) - D(t)|  <=  D(|t| + e) - D(|t|),

which is what rounding alone may do; more is a fault of the file. Where it depends on the weight (DoRA, OFT), the same
is measured: ``D`` is computed again from tensors that were moved by ``e``, signs at random. Norms are compared, with
room for the rounding of float32 in both computations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ...adapters.base import AdditiveDelta
from ...architectures import ARCHITECTURES
from ...io import TensorDict, TensorFile, TensorRef, TensorSource, open_tensors
from ...io.dtypes import TORCH_DTYPES
from ...mapping import map_source, require_complete
from ...patching import LowRankStep, Patch, apply_patch, bind, fuse
from ...stack import Adapter, Stack, StackEntry
from ...types import ModuleKey, Target
from ..stops import TrainingStoppedError

# Part of the change that rounding may take before the user is told: pictures show a few per cent.
_TOLD = 0.02
# How much further than the bound a difference may go: 1 for bounds, some spread for what is measured.
_ROOM, _MEASURED_ROOM = 1.5, 4.0
# Of float32 sums in two programs, in units of 2^-24 of the sum of absolute values.
_SUMS = 16.0


class NotAsTrainedError(TrainingStoppedError, ValueError):
    """A saved file does not do what was trained."""

    def __init__(self, file: str, module: str, why: str) -> None:
        self.file, self.module, self.why = file, module, why
        super().__init__(
            f"{file}: {module}: {why}. The file was not put in its place, an older one stays as it was. The state of "
            f"the run is kept: the same command goes on from there; choose another output.format, and report this."
        )


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a comparison found.

    Args:
        modules: that were compared.
        worst: largest share of a module's change that rounding took, as a norm.
        module: where.
        dtype: of the file's factors, for the warning.
    """

    modules: int
    worst: float
    module: str
    dtype: str

    @property
    def warning(self) -> str:
        """For the user, "" where rounding does not show."""
        if self.worst <= _TOLD:
            return ""
        return (
            f"rounding to {self.dtype} takes {100 * self.worst:.2g} % of the change of {self.module}: save with "
            f'output.dtype = "fp32"'
        )


def check_saved(
    path: Path,
    deltas: Mapping[ModuleKey, Tensor],
    *,
    architecture: str,
    embeddings: Mapping[str, Mapping[str, Tensor]] | None = None,
    weight_of: Callable[[ModuleKey], Tensor] | None = None,
) -> CheckReport:
    """Read a file and compare it with what was trained.

    Args:
        path: of the file or folder.
        deltas: canonical module -> change of its whole weight, from PEFT; each is asked for once.
        architecture: the model's.
        embeddings: that the file has to hold.
        weight_of: canonical module -> weight of the base; needed for DoRA, OFT and their like.

    Raises:
        NotAsTrainedError: a module is missing, is one too many, or changes otherwise than trained.
        as ``load_adapter`` with ``strict``.
    """
    name = path.name
    sources = [open_tensors(one) for one in _files(path)]
    # No cache: it goes by name, time and size, and what is wanted are the bytes on disk.
    loaded = [_Loaded(source, architecture) for source in sources]
    patches: dict[ModuleKey, tuple[Patch, _Loaded]] = {}
    known = set(deltas)  # asking a lazy mapping whether it has a key may compute the value
    for one in loaded:
        for target, patch in one.patches.items():
            if target.parameter != "weight" or target.module not in known:
                raise NotAsTrainedError(name, ".".join(target.module), "the file changes it, and it was not trained")
            patches[target.module] = (patch, one)
    worst, where = 0.0, ""
    for key in deltas:
        if key not in patches:
            raise NotAsTrainedError(name, ".".join(key), "it was trained, and the file does not change it")
        lost = _compare(name, key, deltas[key], *patches[key], weight_of)
        if lost > worst:
            worst, where = lost, ".".join(key)
    _check_embeddings(name, [one.adapter for one in loaded], embeddings or {})
    kinds = {ref.dtype for one in loaded for _, delta in one.adapter.deltas for ref in delta.tensors}
    for source in sources:
        source.close()
    return CheckReport(len(patches), worst, where, "/".join(sorted(kinds)).lower())


class _Loaded:
    """A file's patches, and what they would be of other tensors; each is made when it is asked for."""

    def __init__(self, source: TensorSource, architecture: str) -> None:
        self._source, self._architecture = source, architecture
        self.adapter = map_source(source, architecture)
        require_complete(self.adapter.report)
        self.patches = _bound(self.adapter)

    @cached_property
    def sizes(self) -> Mapping[Target, Patch]:
        """Of absolute values."""
        return self._of(lambda tensor: tensor.float().abs())

    @cached_property
    def larger(self) -> Mapping[Target, Patch]:
        """Of absolute values, as large as they may have been before they were rounded."""
        return self._of(lambda tensor: tensor.float().abs() + _rounding(tensor))

    @cached_property
    def moved(self) -> list[Mapping[Target, Patch]]:
        """Twice: of tensors that are off by their rounding, signs at random."""
        random = torch.Generator().manual_seed(0)

        def move(tensor: Tensor) -> Tensor:
            signs = torch.randint(0, 2, tensor.shape, generator=random).mul_(2).sub_(1)
            return tensor.float() + signs * _rounding(tensor)

        return [self._of(move) for _ in range(2)]

    def _of(self, change: Callable[[Tensor], Tensor]) -> Mapping[Target, Patch]:
        """Alphas are single numbers in float32, and exact."""
        tensors = {key: ref.load() for key, ref in self._source.items()}
        changed = {
            key: change(tensor) if tensor.is_floating_point() and tensor.numel() > 1 else tensor
            for key, tensor in tensors.items()
        }
        source = TensorDict(changed, self._source.label, self._source.metadata)
        return _bound(map_source(source, self._architecture))


def _compare(
    file: str,
    key: ModuleKey,
    trained: Tensor,
    patch: Patch,
    loaded: _Loaded,
    weight_of: Callable[[ModuleKey], Tensor] | None,
) -> float:
    """Raise where a module does not do what was trained; the share of its change that rounding took."""
    trained = trained.detach().float().cpu().reshape(patch.shape)
    if all(isinstance(part.delta, AdditiveDelta) for part in patch.parts):
        # On the negative of what was trained, so that the difference comes out without another pass.
        off = _norm(apply_patch(-trained, patch))
        rounding, whole = _room(loaded.sizes[patch.target], loaded.larger[patch.target])
        allowed = _ROOM * rounding + _SUMS * 2**-24 * whole
    else:
        if weight_of is None:
            raise ValueError(f"{'.'.join(key)}: its change depends on the weight: give weight_of")
        weight = weight_of(key).detach().float().cpu().reshape(patch.shape)
        changed = apply_patch(weight, patch)
        off = _norm(changed - weight - trained)
        spread = max(_norm(apply_patch(weight, moved[patch.target]) - changed) for moved in loaded.moved)
        allowed = _MEASURED_ROOM * spread + _SUMS * 2**-24 * (_norm(changed) + _norm(weight))
    whole = _norm(trained)
    if not off <= allowed:  # NaN is no agreement
        raise NotAsTrainedError(
            file,
            ".".join(key),
            f"read back, its change differs from the trained one by {off:.3g} of {whole:.3g} (norms), where rounding "
            f"explains {allowed:.3g}",
        )
    return off / whole if whole else 0.0


def _bound(adapter: Adapter) -> Mapping[Target, Patch]:
    row = ARCHITECTURES.get(adapter.architecture)
    return bind(Stack((StackEntry(adapter),)), row.shape, row).patches


def _rounding(tensor: Tensor) -> Tensor:
    """The most that each value may have been off before it was rounded to the tensor's type."""
    if tensor.dtype == torch.float32:  # as trained; a scale that went into a factor was rounded once
        return tensor.abs() * 2**-24
    info = torch.finfo(tensor.dtype)
    return torch.clamp(tensor.float().abs() * (info.eps / 2), min=info.smallest_normal * info.eps / 2)


def _room(size: Patch, larger: Patch) -> tuple[float, float]:
    """Norms of ``larger - size`` and of ``larger``; of low ranks without a product of the weight's size."""
    pairs = list(zip(fuse(size), fuse(larger), strict=True))
    low = [(a, b) for a, b in pairs if isinstance(a, LowRankStep) and isinstance(b, LowRankStep)]
    if len(low) < len(pairs):
        zero = torch.zeros(size.shape)
        whole = apply_patch(zero, larger)
        return _norm(whole - apply_patch(zero, size)), _norm(whole)
    # Slices are rows apart from each other, so their squares add up.
    between = sum(_square(torch.cat([b.up, -a.up], 1), torch.cat([b.down, a.down])) for a, b in low)
    return sqrt(between), sqrt(sum(_square(b.up, b.down) for _, b in low))


def _square(up: Tensor, down: Tensor) -> float:
    """``|up down|^2 = sum of (up^T up) * (down down^T)``, in float64, where small differences stay exact."""
    up, down = up.double(), down.double()
    return max(0.0, float(((up.T @ up) * (down @ down.T)).sum()))


def _norm(tensor: Tensor) -> float:
    # In float32, 25 times as fast as in float64 and off by a thousandth at ten million values: bounds have more room.
    return float(cast("Callable[[Tensor], Tensor]", torch.linalg.vector_norm)(tensor))  # pyright: ignore[reportUnknownMemberType]


def _check_embeddings(file: str, adapters: list[Adapter], wanted: Mapping[str, Mapping[str, Tensor]]) -> None:
    for token, encoders in wanted.items():
        for encoder, trained in encoders.items():
            ref = next((one.embeddings[token].get(encoder) for one in adapters if token in one.embeddings), None)
            if ref is None:
                raise NotAsTrainedError(
                    file, f"embedding {token} of {encoder}", "it was trained, and is not in the file"
                )
            _check_embedding(file, f"embedding {token} of {encoder}", ref, trained)


def check_embeddings(files: Sequence[Path], embeddings: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Read files of embeddings alone, one a token, and compare them with what was trained.

    Raises:
        NotAsTrainedError: one is missing or another.
        CorruptFileError: a file cannot be read.
    """
    for file, (token, encoders) in zip(files, embeddings.items(), strict=True):
        with TensorFile(file) as source:
            for encoder, trained in encoders.items():
                what, key = f"embedding {token} of {encoder}", token if len(encoders) == 1 else encoder
                if key not in source:
                    raise NotAsTrainedError(file.name, what, "it was trained, and is not in the file")
                _check_embedding(file.name, what, source[key], trained)


def _check_embedding(file: str, what: str, ref: TensorRef, trained: Tensor) -> None:
    expected = trained.detach().cpu().to(TORCH_DTYPES[ref.dtype]).reshape(ref.shape)
    if not torch.equal(ref.load(), expected):
        raise NotAsTrainedError(file, what, "read back, it is another")


def _files(path: Path) -> list[Path]:
    """The file; of a PEFT folder with a folder for each component, these."""
    if not path.is_dir():
        return [path]
    inner = sorted(one for one in path.iterdir() if one.is_dir())
    return inner or [path]
