"""``NoHostWaits``: a block in which reading a tensor's value on the host is an error.

On a GPU such a read waits for all that was sent to it. On the CPU the same operation is called and can be caught.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = (
    torch.ops.aten._local_scalar_dense.default,  # .item(), float(x), if x, x in an f-string
    torch.ops.aten.nonzero.default,  # boolean masks: the result's size is a value
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)


class NoHostWaits(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in READS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))
