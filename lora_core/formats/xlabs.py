"""XLabs' FLUX LoRAs, and USO's: ``double_blocks.0.processor.qkv_lora1.down.weight``.

The adapters hang on the attention's processor: ``qkv_lora1`` and ``proj_lora1`` change the image's attention,
``...2`` the text's. In single blocks ``qkv_lora`` adds to q, k and v, the first rows of ``linear1``, and
``proj_lora`` to ``linear2``. There is no alpha. Source: XLabs-AI/x-flux, bytedance/USO.
"""

from __future__ import annotations

import re

from ..architectures import Architecture
from ..types import DENOISER, ModuleKey, Slice
from .base import Format, Found, Located, NamedRole, Names

_KEY = re.compile(r"((?:double|single)_blocks\.\d{1,3}\.processor\.(?:qkv|proj)_lora[12]?)\.(down|up)\.weight")
_DOUBLE = {
    "qkv_lora1": "img_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora2": "txt_attn.proj",
}


def split(key: str) -> Found:
    """``double_blocks.0.processor.qkv_lora1.up.weight`` -> (``double_blocks.0.processor.qkv_lora1``, ``up``)."""
    found = _KEY.fullmatch(key)
    return NamedRole(found[1], found[2]) if found else None


def names(architecture: Architecture) -> Names:
    """The attentions of a model with double and single blocks; nothing for other families."""
    component = architecture.component(DENOISER)
    table: dict[str, Located] = {}
    for path, module in component.modules.items() if component else ():
        block, _, leaf = path.rpartition(".linear")
        if path.startswith("single_blocks.") and leaf in ("1", "2"):
            out, into = module.shapes["weight"]
            key = ModuleKey(DENOISER, path)
            if leaf == "1":
                table[f"{block}.processor.qkv_lora"] = Located(key, Slice(0, 0, 3 * into) if out > 3 * into else None)
            else:
                table[f"{block}.processor.proj_lora"] = Located(key)
        for name, attention in _DOUBLE.items():
            if path.startswith("double_blocks.") and path.endswith(f".{attention}"):
                table[f"{path.removesuffix(attention)}processor.{name}"] = Located(ModuleKey(DENOISER, path))
    return table


FORMAT = Format("xlabs", "XLabs", split, names)
