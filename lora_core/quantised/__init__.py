"""Weights that files keep in fewer bits: what they stand for, and how a patched weight is put back.

One scheme is one file and one row of ``SCHEMES``.
"""

from .base import Layer, Scheme, dequantised, requantised
from .detect import METADATA_KEY, Quantised, find_quantised
from .table import SCHEMES

__all__ = [
    "METADATA_KEY",
    "SCHEMES",
    "Layer",
    "Quantised",
    "Scheme",
    "dequantised",
    "find_quantised",
    "requantised",
]
