"""One change under two names in a file: the fused matrix, and beside it the same as q, k and v.

Some files for Z-Image hold ``attention.qkv`` and ``attention.to_q``, ``to_k``, ``to_v`` of each layer, so that readers
of either naming find what they know (huggingface/diffusers issue 13203). Each reader uses one of them, and both
together would be the change twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from .architectures import Architecture
from .fitting import Fit, Groups
from .types import ModuleReport, Target


def drop_repeats(found: Fit, groups: Groups) -> None:
    """Keep one name of each change; the tensors of the others are ignored, with the reason."""
    for name, kept in repeats(found.modules, found.architecture).items():
        keys = {ref.name for ref in groups.modules[name].values()}
        reason = f"the same change as {kept}, under another name; both would be the change twice"
        found.ignored |= {key: reason for key in found.used if key in keys}
        found.used = [key for key in found.used if key not in keys]
        left = [place for place, module in enumerate(found.modules) if module.name != name]
        found.modules, found.deltas = [found.modules[place] for place in left], [found.deltas[place] for place in left]


def repeats(modules: Iterable[ModuleReport], architecture: Architecture) -> dict[str, str]:
    """Name -> the name that it repeats: one for the same rows, or for a matrix whose rows all have names besides."""
    modules = list(modules)
    targets = {module.target for module in modules}
    if len(targets) == len(modules) and not targets & {target.whole for target in targets if target.slice}:
        return {}  # as nearly every file
    places: dict[Target, dict[str, list[Target]]] = {}
    for module in modules:
        places.setdefault(module.target.whole, {}).setdefault(module.name, []).append(module.target)
    verdicts: dict[str, list[str | None]] = {}
    for whole, names in places.items():
        fused = next((name for name, targets in names.items() if whole in targets), None)
        rows = {name for name, targets in names.items() if whole not in targets}
        cuts = sorted({target.slice for name in rows for target in names[name] if target.slice})
        everything = (architecture.shape(whole) or (0,))[0]
        joined = all(cut.start == sum(other.length for other in cuts[:index]) for index, cut in enumerate(cuts))
        joined = joined and sum(cut.length for cut in cuts) == everything
        first: dict[tuple[Target, ...], str] = {}
        for name, targets in names.items():
            same = first.setdefault(tuple(targets), name)
            kept = same if same != name else None
            if fused is not None and name in rows and joined:
                kept = fused
            verdicts.setdefault(name, []).append(kept)
    return {name: kept[0] for name, kept in verdicts.items() if kept[0] is not None and None not in kept}
