"""Files of real names and shapes that take no room."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lora_core.io.dtypes import itemsize


def sparse_file(
    path: Path,
    tensors: Mapping[str, Any],
    dtypes: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    contents: Mapping[str, bytes] | None = None,
) -> Path:
    """A safetensors file of these shapes whose data is a hole: seven gigabytes that take no room.

    Args:
        dtypes: name -> dtype as in the header; F16 where there is none.
        contents: name -> data of the few tensors that have any.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        dtype = (dtypes or {}).get(name, "F16")
        begin, end = end, end + torch.Size(shape).numel() * itemsize(dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    with path.open("r+b") as file:
        for name, data in (contents or {}).items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(data)
    return path
