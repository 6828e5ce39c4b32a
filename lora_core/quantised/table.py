"""The table of schemes."""

from __future__ import annotations

from ..registry import Registry
from . import fp8, int8, mxfp8, nvfp4
from .base import Scheme

SCHEMES: Registry[Scheme] = Registry("quantisation", (*fp8.SCHEMES, mxfp8.SCHEME, nvfp4.SCHEME, *int8.SCHEMES))
