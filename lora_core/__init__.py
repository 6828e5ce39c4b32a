"""LoRA Loom's library: read every LoRA, map it onto a model, compute its patches. Needs no host.

>>> from lora_core import load_adapter                                   # doctest: +SKIP
>>> adapter = load_adapter("style.safetensors")
>>> adapter.report.architecture, len(adapter.deltas)
('sdxl', 722)
"""

from .mapping import load_adapter, map_source
from .stack import Adapter, Stack, StackEntry, Strengths
from .types import MappingReport, ModuleKey, Slice, Target

__all__ = [
    "Adapter",
    "MappingReport",
    "ModuleKey",
    "Slice",
    "Stack",
    "StackEntry",
    "Strengths",
    "Target",
    "load_adapter",
    "map_source",
]
