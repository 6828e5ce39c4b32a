"""diffusers and PEFT import torchao and bitsandbytes wherever they are installed, used or not.

Those then log, at import, of kernels for hardware that is not here and of names that torch will drop; transformers does
of packages that nobody needs here. Whoever trains can do nothing about it. Errors are still told, and so is what these
packages say later, when they work.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

# Whose warnings at import are of no use, with what they say.
_LOGGERS = (
    "bitsandbytes.backends.cpu.ops",  # Failed to load CPU gemm_4bit_forward from kernels-community
    "diffusers.quantizers.torchao.torchao_quantizer",  # Unable to import `torchao` Tensor objects
    "torch.utils._pytree",  # Calling register_constant() on Enum subclasses is deprecated
    "torchao",  # Failed to load ..._C_mxfp8....so
    "transformers.utils.import_utils",  # `CLIPImageProcessor` requires torchvision
)


@contextmanager
def hushed() -> Generator[None, None, None]:
    """No warnings at import, inside the block, of packages that other packages import unasked."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
