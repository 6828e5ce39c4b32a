"""How parameters move: optimizers of several libraries by one name each, and their learning rates over a run.

One optimizer is one row of ``OPTIMIZERS``.
"""

from .building import build_optimizer
from .modes import averaged, optimizer_mode, stepping_alone
from .rates import build_schedule, warmup_steps
from .state import flatten_state, load_optimizer, restore_state
from .table import OPTIMIZERS, OptimizerRow

__all__ = [
    "OPTIMIZERS",
    "OptimizerRow",
    "averaged",
    "build_optimizer",
    "build_schedule",
    "flatten_state",
    "load_optimizer",
    "optimizer_mode",
    "restore_state",
    "stepping_alone",
    "warmup_steps",
]
