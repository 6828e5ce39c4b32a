"""PEFT's configuration of an adapter: what ``adapter_config.json`` says, and diffusers' metadata of the same content.

``r`` and ``lora_alpha`` are those that most modules have; modules with others are in ``rank_pattern`` and
``alpha_pattern``. PEFT takes the first pattern that is a module's name or the end of one, so the longest come first,
and a module whose name ends like another's pattern has its own. For the same reason the names of CLIP's layers can
leave out ``text_model.``, which the models of transformers 4 have and those of transformers 5 have not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..errors import ConversionError
from .units import Unit

Json = dict[str, object]


def peft_config(file: str, title: str, modules: Mapping[str, Unit]) -> Json:
    """The configuration of these modules, path -> what it has.

    Raises:
        ConversionError: modules of types that no one configuration has together.
    """
    units = list(modules.values())
    loha = _one(file, title, units, "hada_w1_a")
    modules = {path.removeprefix("text_model."): unit for path, unit in modules.items()}
    ranks = {path: unit.rank or 1 for path, unit in modules.items()}
    alphas = {path: _number(unit.scale * ranks[path]) for path, unit in modules.items()}
    rank, rank_pattern = _patterns(ranks)
    alpha, alpha_pattern = _patterns(alphas)
    shared: Json = {
        "r": rank,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": list(modules),
    }
    if loha:
        tucker = _one(file, title, units, "hada_t1")
        return {"peft_type": "LOHA", "alpha": alpha, "use_effective_conv2d": tucker, **shared}
    return {
        "peft_type": "LORA",
        "lora_alpha": alpha,
        "use_dora": _one(file, title, units, "magnitude"),
        "lora_bias": any("up_bias" in unit.roles for unit in units),
        **shared,
    }


def _one(file: str, title: str, units: Sequence[Unit], role: str) -> bool:
    """Whether the modules have this role: all of them or none."""
    having = [role in unit.roles for unit in units]
    if any(having) and not all(having):
        odd = units[having.index(not having[0])]
        why = (
            f"it and {units[0].name} ({units[0].kind}) are of two types, and one configuration has one for all modules"
        )
        raise ConversionError(file, title, odd.kind, odd.name, why)
    return having[0]


def _patterns(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The value that most have, and those of the others."""
    usual = Counter(values.values()).most_common(1)[0][0]
    special = {path: value for path, value in values.items() if value != usual}
    mistaken = {
        path: value
        for path, value in values.items()
        if path not in special and any(path.endswith(f".{other}") for other in special)
    }
    return usual, dict(sorted({**special, **mistaken}.items(), key=lambda item: -len(item[0])))


def _number(value: float) -> float:
    """An integer where it is one, as configurations have it."""
    nearest = round(value)
    return nearest if abs(value - nearest) < 1e-9 * max(abs(value), 1) else value
