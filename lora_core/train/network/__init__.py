"""What is trained: adapters that PEFT puts into a frozen model.

NetworkSection ── planning    which modules (``targets``), of what rank and alpha
               ── injection   PEFT's layers in their places, ``layers`` what they hold
               ── starts      values from the seed
               = AdaptedModule, and of a denoiser and its text encoders a Network
               ── export      an ``Adapter`` as any file gives one
"""

from .adapted import AdaptedModule
from .any_module import attach_module, load_module, save_module
from .group import Group
from .network import Network, NetworkReport

__all__ = [
    "AdaptedModule",
    "Group",
    "Network",
    "NetworkReport",
    "attach_module",
    "load_module",
    "save_module",
]
