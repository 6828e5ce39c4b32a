"""Which modules of a model get an adapter, and of what rank and alpha, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from torch import nn

from ...errors import ConfigError
from ..config.network import NetworkSection, Targets
from .targets import Names, is_explicit, is_named, unwanted, wanted

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class Place:
    """What the family says of a module.

    Args:
        path: canonical.
        block: "base" outside of blocks.
        name: that random numbers of it follow from, the same in every library; "" for the library's path.
    """

    path: str
    block: str
    name: str = ""


# library's path -> Place; None where the family has no such module, so that no file could hold its change.
PlaceOf = Callable[[str], "Place | None"]


@dataclass(frozen=True, slots=True)
class Plan:
    """An adapter to be.

    Args:
        path: of the module in its model.
        rank: for OFT the size of a block.
        alpha: scale is alpha / rank.
        name: that random numbers of it follow from.
    """

    path: str
    rank: int
    alpha: float
    name: str


@dataclass(frozen=True, slots=True)
class Planned:
    """All of a model, and the paths that were wanted but that the family has no name for."""

    plans: tuple[Plan, ...]
    nameless: tuple[str, ...]


def plan(
    module: nn.Module, section: NetworkSection, place_of: PlaceOf, blocks: Sequence[str], where: str = "network"
) -> Planned:
    """The adapters of a model, in the order of its modules.

    A block's rank and alpha win over the network's; layers with kernels larger than 1x1 have ``conv_rank`` and
    ``conv_alpha`` instead, and a block of rank 0 has none of them. Where an alpha is left out it is the rank.

    Args:
        module: the model.
        section: what is wanted.
        place_of: what the family says of a path.
        blocks: the family's names of blocks, for errors.
        where: table of the settings, for errors.

    Raises:
        ConfigError: nothing is chosen, a name in a list chooses nothing, or a block does not exist.
    """
    _check_blocks(section, blocks, where)
    is_wanted, is_unwanted = wanted(section.targets, f"{where}.targets"), unwanted(section.exclude, f"{where}.exclude")
    explicit, with_kernels = is_explicit(section.targets), section.conv_rank > 0
    plans: list[Plan] = []
    nameless: list[str] = []
    seen: list[Names] = []
    convolutions = wanted("conv", where)
    for path, one in adaptable(module):
        place = place_of(path)
        names = (path,) if place is None or place.path == path else (path, place.path)
        seen.append(names)
        kernel = has_kernel(one)
        chosen = is_wanted(names) or (with_kernels and not explicit and convolutions(names))
        if not chosen or is_unwanted(names) or (kernel and not explicit and not with_kernels):
            continue
        if place is None:
            nameless.append(path)
            continue
        rank, alpha = _size(section, place.block, kernel)
        if rank > 0:
            plans.append(Plan(path, rank, alpha, place.name or path))
    _check_list(section.targets, seen, f"{where}.targets")
    if not plans:
        reason = "the family has no names for them, so no file could hold them" if nameless else _there_are(seen)
        raise ConfigError(f"{where}.targets", [f"{section.targets!r} chooses no module: {reason}"])
    return Planned(tuple(plans), tuple(nameless))


def adaptable(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, layer) of every linear layer and convolution that PEFT can wrap.

    Those inside torch's ``MultiheadAttention`` are left out: it reads their weights and never calls them.
    """
    found: list[tuple[str, nn.Module]] = []
    inside: list[str] = []
    for path, one in modules_of(module):
        if isinstance(one, nn.MultiheadAttention):
            inside.append(f"{path}.")
        elif path and isinstance(one, ADAPTABLE) and not path.startswith(tuple(inside)):
            found.append((path, one))
    return found


def modules_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of all that is in a module, itself first."""
    return list(cast("Iterator[tuple[str, nn.Module]]", module.named_modules()))


def has_kernel(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that sees more than one place."""
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and any(size > 1 for size in layer.kernel_size)


def _size(section: NetworkSection, block: str, kernel: bool) -> tuple[int, float]:
    """Rank and alpha."""
    rank = section.block_ranks.get(block, section.rank)
    if kernel and section.conv_rank and rank:
        return section.conv_rank, section.conv_alpha or float(section.conv_rank)
    return rank, section.block_alphas.get(block, section.alpha or float(rank))


def _check_blocks(section: NetworkSection, blocks: Sequence[str], where: str) -> None:
    faults: list[str] = []
    for setting, names in (("block_ranks", section.block_ranks), ("block_alphas", section.block_alphas)):
        for name in names:
            if name not in blocks:
                near = get_close_matches(name, blocks, n=1)
                advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(blocks) or 'none'}"
                faults.append(f"{setting}.{name}: no such block; {advice}")
    if faults:
        raise ConfigError(where, faults)


def _check_list(targets: Targets, seen: Sequence[Names], where: str) -> None:
    """Each name of a list has to mean a module: one that is misspelt would be left out in silence."""
    if isinstance(targets, str):
        return
    endings = sorted(
        {name.rpartition(".")[2] for names in seen for name in names} | {n for names in seen for n in names}
    )
    faults: list[str] = []
    for one in targets:
        if not any(is_named(name, one) for names in seen for name in names):
            near = get_close_matches(one, endings, n=1)
            faults.append(f"{one!r} is the name of no module" + (f"; did you mean {near[0]!r}?" if near else ""))
    if faults:
        raise ConfigError(where, faults)


def _there_are(seen: Sequence[Names]) -> str:
    paths = [[part for part in names[0].split(".") if not part.isdigit()] for names in seen]
    endings = sorted({".".join(parts[-3:]) for parts in paths})
    return f"there are {', '.join(endings[:8])}" + (", ..." if len(endings) > 8 else "")
