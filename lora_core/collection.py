"""Python's collector of garbage, kept from waking while thousands of objects are made that stay.

It wakes every few hundred of them, and now and then walks through all that a program has in memory: in a host that is
a tenth of a second and more, in which every thread of it stands still.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Generator[None, None, None]:
    """Pause it. Of threads that do so at once, the first to end may end it for all."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
