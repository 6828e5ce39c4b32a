"""Bad inputs made of good ones, seeded: the same number makes the same input."""

from __future__ import annotations

import math
import random

import seeds
import torch
from safetensors.torch import save

from lora_core.formats.suffixes import ROLES
from lora_core.io.dtypes import TORCH_DTYPES

# What parsers stumble over.
WORDS = (
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"9" * 400, b"\xc2\xb2",
    b"[" * 2_000, b"{" * 500, b'{"a":' * 300, b"null", b"true", b'"\\ud800"', b"\\u0000", b"lora_up.weight", b".alpha",
    b"18446744073709551616", b"9223372036854775807", b"4294967295", b'"shape":[0,9223372036854775807]', b"__metadata__",
    b"=", b":", b",", b"<lora:", b">", b"%", b"@", b"..", b"\\", b"/", b" " * 300, b"\n" * 50, "\u202e\u00e9".encode(),
)  # fmt: skip

STARTS = ("unet.", "transformer.", "diffusion_model.", "base_model.model.", "text_encoder.", "lora_unet_", "lora_te1_",
          "lycoris_", "oft_unet_", "bundle_emb.", "model.", "unet:0:")  # fmt: skip


def mutated(data: bytes, number: int, others: list[bytes] | None = None) -> bytes:
    """One to six edits: bits, cuts, doubled and moved parts, words of ``WORDS``, parts of other inputs."""
    chance = random.Random(number)
    result = bytearray(data)
    # Where the interesting part of most files is.
    reach = len(result) if chance.random() < 0.3 else min(len(result), 1500)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(min(reach, len(result)) + 1)
        length = chance.choice((1, 1, 2, 8, 30, 200))
        match chance.randrange(8):
            case 0 if result:
                result[place % len(result)] ^= 1 << chance.randrange(8)
            case 1:
                del result[place : place + length]
            case 2:
                result[place:place] = result[place : place + length]
            case 3:
                result[place : place + length] = bytes(chance.randrange(256) for _ in range(length))
            case 4:
                result[place:place] = chance.choice(WORDS)
            case 5:
                result[place : place + chance.choice((1, 4, 10))] = chance.choice(WORDS)
            case 6:
                other = chance.choice(others or [data])
                start = chance.randrange(len(other) + 1)
                result[place:place] = other[start : start + length]
            case _:
                if chance.random() < 0.2:
                    del result[place:]
    return bytes(result)


def rebuilt(number: int) -> bytes:
    """A file whose header is right and whose content is not: names, shapes, dtypes, values and metadata changed.

    What ``mutated`` makes mostly ends at the header; this reaches what reads names and shapes.
    """
    chance = random.Random(number)
    tensors = dict(seeds.tensors(chance.choice(seeds.KINDS)))
    if chance.random() < 0.3:
        tensors |= seeds.tensors(chance.choice(seeds.KINDS))
    for _ in range(chance.randint(1, 5)):
        _edit(tensors, chance)
    metadata = {key: text for key, text in seeds.METADATA.items() if chance.random() < 0.5}
    for key in (*list(metadata)[:2], "adapter_config", "lora_adapter_metadata"):
        if chance.random() < 0.3:
            text = metadata.get(key, '{"r": 4, "lora_alpha": 8, "unet.lora_alpha": 2, "alpha_pattern": {"to_q": 3}}')
            metadata[key] = mutated(text.encode(), number, [b'{"a": [1, {"b": null}]}']).decode("utf-8", "replace")
    match chance.randrange(4):
        case 0:
            # Numbers instead of tensors, tables in tables, what is no tensor at all.
            content: dict[str, object] = {**tensors}
            for key in list(content):
                if chance.random() < 0.1:
                    content[key] = chance.choice((1, 0.5, float("nan"), "text", None, [1], {"a": {}}, 10**30, True))
            wrapped = {"state_dict": content, "epoch": 1} if chance.random() < 0.3 else content
            return seeds.pickled(wrapped, zipped=chance.random() < 0.7)
        case _:
            return save({key: tensor.clone() for key, tensor in tensors.items()}, metadata)


def _edit(tensors: dict[str, torch.Tensor], chance: random.Random) -> None:
    """Change one thing of one tensor."""
    if not tensors:
        return
    key = chance.choice(list(tensors))
    tensor = tensors[key]
    match chance.randrange(8):
        case 0:
            del tensors[key]
        case 1:
            tensors[_renamed(key, chance)] = tensor
        case 2:
            tensors[_renamed(key, chance)] = tensors.pop(key)
        case 3:
            sizes = [chance.choice((0, 1, 1, 2, 3, 4, 8, 80, 320)) for _ in range(chance.randrange(6))]
            while math.prod(sizes) > 200_000:
                sizes.pop()
            tensors[key] = torch.ones(sizes)
        case 4:
            dtype = chance.choice(list(TORCH_DTYPES.values()))
            tensors[key] = tensor.to(torch.float32).to(dtype) if tensor.dtype != dtype else tensor
        case 5:
            value = chance.choice((float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e30, 1e-30))
            tensors[key] = torch.full(tensor.shape, value, dtype=torch.float32)
        case 6:
            tensors[key] = tensor.transpose(0, -1).contiguous() if tensor.dim() > 1 else tensor.reshape(-1)
        case _:
            name = key.rpartition(".")[0]
            alphas = (torch.tensor(math.nan), torch.tensor(0), torch.tensor([100000]), torch.ones(2), torch.tensor(1j))
            tensors[f"{name}.alpha"] = chance.choice(alphas).clone()


def _renamed(key: str, chance: random.Random) -> str:
    """Another name: a suffix of another type, another place in the model, or bytes changed."""
    head, _, last = key.rpartition(".")
    match chance.randrange(6):
        case 0:
            return f"{head}.{chance.choice(sorted(ROLES)).replace('*', str(chance.randrange(3)))}"
        case 1:
            return f"{chance.choice(STARTS)}{key}"
        case 2:
            return key.replace("0", str(chance.choice((1, 7, 99, "²", "00", "9" * 5000))), 1)
        case 3:
            return f"{head}.{'x' * chance.choice((1, 300, 20_000))}.{last}"
        case 4:
            return f"{head}.{head}.{last}"
        case _:
            return mutated(key.encode(), chance.randrange(1 << 30)).decode("utf-8", "replace")
