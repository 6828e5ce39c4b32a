"""Number types of safetensors files and their torch equals.

Source: the safetensors format description (dtype names, little endian, row major).
"""

from __future__ import annotations

import torch

# name in the header -> torch dtype. F8_E8M0 and the sub-byte types carry scales of quantised models.
TORCH_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
for _name, _attribute in (
    ("U64", "uint64"),
    ("U32", "uint32"),
    ("U16", "uint16"),
    ("C64", "complex64"),
    ("F8_E8M0", "float8_e8m0fnu"),
):
    if hasattr(torch, _attribute):  # newer torch only
        TORCH_DTYPES[_name] = getattr(torch, _attribute)

NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

FP8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16}) | FP8


_SIZES = {name: dtype.itemsize for name, dtype in TORCH_DTYPES.items()}


def itemsize(name: str) -> int:
    """Bytes of one element of the dtype with this header name."""
    return _SIZES[name]
