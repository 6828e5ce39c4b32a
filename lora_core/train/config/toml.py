"""TOML as nested dictionaries: Python's own reader from 3.11 on, and before it the package that became it."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def read_toml(text: str) -> dict[str, Any]:
    """Raises ValueError with line and column where ``text`` is not TOML."""
    reader: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return reader.loads(text)
