"""Results of jobs in order, computed a few ahead of their turn in threads of one core each.

One tensor a thread beats one tensor on all cores: nothing waits at the end of each small operation for the
slowest core, which on a busy machine costs several times the work, and the writing goes on meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from types import TracebackType
from typing import Generic, TypeVar

import torch

# The writing of results, or the reading of factors, keeps up with few threads; each holds a tensor in memory.
MAX_THREADS = 4

Result = TypeVar("Result")


class Ahead(Generic[Result], Iterator[Result]):
    """Iterates over the results of ``jobs``; the first ones start at once. Leaving the block drops the rest.

    >>> with Ahead([lambda: 1, lambda: 2]) as results:
    ...     list(results)
    [1, 2]
    """

    def __init__(self, jobs: Iterable[Callable[[], Result]]) -> None:
        threads = min(torch.get_num_threads(), MAX_THREADS)
        self._pool = ThreadPoolExecutor(threads, "loom-ahead")
        one_core_each(self._pool, threads)
        self._jobs = iter(jobs)
        self._pending: deque[Future[Result]] = deque()
        for _ in range(threads + 1):
            self._submit()

    def _submit(self) -> None:
        job = next(self._jobs, None)
        if job is not None:
            self._pending.append(self._pool.submit(job))

    def __next__(self) -> Result:
        if not self._pending:
            raise StopIteration
        result = self._pending.popleft().result()
        self._submit()
        return result

    def __enter__(self) -> Ahead[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def one_core_each(pool: ThreadPoolExecutor, threads: int) -> None:
    """Let each thread of the pool compute on one core.

    Torch keeps the number of cores per thread, and one for threads to come: that one is put back.
    """
    cores = torch.get_num_threads()
    barrier = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # the first question in a thread sets the number, and would undo what follows
        torch.set_num_threads(1)
        barrier.wait()  # so that each thread of the pool takes one of these jobs

    for started in [pool.submit(start) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(cores)
