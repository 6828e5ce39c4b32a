"""Random numbers that are functions of what they are for, not of what was drawn before.

Noise, timesteps, crops, captions and the order of data follow from (seed, purpose, step, place in the batch), so a
run that is resumed, split over processes, or cut into smaller passes draws the same numbers, and no random state has
to be saved.
"""

from __future__ import annotations

import hashlib

import torch


def number(seed: int, *of: object) -> int:
    """A 63-bit number for a purpose: ``number(seed, "crop", step, position)``."""
    digest = hashlib.blake2b(repr((seed, *of)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *of: object) -> torch.Generator:
    """A generator on the CPU for a purpose; draws are moved to the device, so that every device sees the same."""
    return torch.Generator().manual_seed(number(seed, *of))


def fraction(seed: int, *of: object) -> float:
    """A number in [0, 1) for a purpose; 53 bits, as many as a float holds, or the largest would round to 1."""
    return (number(seed, *of) >> 10) / 2**53
