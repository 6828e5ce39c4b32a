"""Reading the next pictures while the model is busy with these."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")

# Of what was asked for ahead and not taken yet, in steps: a run that changes its mind leaves no more than that.
_STEPS = 4


class Prefetch(Generic[Key, Result]):
    """Results of a function of a key, computed in threads before they are asked for. It must be a pure function."""

    def __init__(self, function: Callable[[Key], Result], workers: int) -> None:
        self._function = function
        self._pool = ThreadPoolExecutor(workers, "loom-data") if workers else None
        self._pending: OrderedDict[Key, Future[Result]] = OrderedDict()

    def ask(self, keys: Sequence[Key]) -> None:
        """Begin with some, if there are threads."""
        if self._pool is None:
            return
        for key in keys:
            if key not in self._pending:
                self._pending[key] = self._pool.submit(self._function, key)
        while len(self._pending) > _STEPS * len(keys):
            self._pending.popitem(last=False)[1].cancel()

    def take(self, key: Key) -> Result:
        """The result, once; raises what the function raises."""
        future = self._pending.pop(key, None)
        return self._function(key) if future is None else future.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pending.clear()
