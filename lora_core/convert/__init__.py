"""LoRA files in other formats: the same change under other names.

Adapter ── units      roles, scale and place of each module, apart from how the file spells them
        ── places     which modules of the target's names they are: the same, rows of one, several joined
        ── gathering  the tensors of each
        ── spelling   in roles and a scale that the format has
        = Conversion  which is written, or handed on as tensors
"""

from .conversion import DTYPES, FOLDERS, WRITERS, Change, Conversion, convert
from .writing import ConvertReport, convert_lora, write_conversion

__all__ = [
    "DTYPES",
    "FOLDERS",
    "WRITERS",
    "Change",
    "Conversion",
    "ConvertReport",
    "convert",
    "convert_lora",
    "write_conversion",
]
