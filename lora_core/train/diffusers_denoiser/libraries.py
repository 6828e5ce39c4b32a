"""The libraries that pipelines are loaded with, imported at first use; their types are not complete, so: ``Any``."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import MissingExtraError


def library(name: str, extra: str = "train", purpose: str = "training from files") -> Any:
    """``library("diffusers").DDIMScheduler``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        raise MissingExtraError(name.split(".")[0], extra, purpose) from error
