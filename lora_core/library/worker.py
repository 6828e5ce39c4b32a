"""The one thread that works while nobody waits: it looks beside files, describes them, hashes them, and writes.

One small thing at a time with a pause after it, so that the program it lives in hardly notices. It is a daemon: a
program that ends does not wait for it, and a database that loses its last second is made up for at the next start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

# Of the processor's time that a thing took here, the pause after it.
_PAUSE = 0.5
# The same while the program has other work.
_PAUSE_BUSY = 4.0
_SHORTEST_PAUSE = 0.001
# Seconds that whoever wakes it has for an answer of its own, alone.
_AFTER_YOU = 0.1
# Seconds until it is seen whether what had to wait can be done by now.
_LOOK_AGAIN = 1.0


class Stopped(Exception):
    """Ends what the worker is at."""


class Worker:
    """Runs the first of its tasks that has something to do, again and again.

    Args:
        tasks: in the order of their urgency; each does one small thing and says whether there was one.
        flush: called at most once per ``every`` seconds while there is work, and at the end of it.
        idle: whether the program has nothing else to do.
        waiting: whether there is something that no task would do just now, but later.
    """

    def __init__(
        self,
        tasks: Sequence[Callable[[], bool]],
        flush: Callable[[], None],
        idle: Callable[[], bool] = lambda: True,
        waiting: Callable[[], bool] = lambda: False,
        every: float = 0.5,
    ) -> None:
        self._tasks, self._flush, self._idle, self._waiting, self._every = tasks, flush, idle, waiting, every
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._flushed = 0.0

    def wake(self) -> None:
        """There may be something to do. Starts the thread when there is none."""
        self._wake.set()
        with self._starting:
            if (self._thread is None or not self._thread.is_alive()) and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="loom-library", daemon=True)
                self._thread.start()

    def close(self, patience: float = 2.0) -> None:
        """Stop, waiting a little for what is being done."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)

    def breathe(self, seconds: float) -> None:
        """Pause after so many seconds of work; ``Stopped`` when it is time to end."""
        pause = max(_SHORTEST_PAUSE, seconds * (_PAUSE if self._idle() else _PAUSE_BUSY))
        if self._stop.wait(pause):
            raise Stopped
        self.flush()

    def flush(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._flushed >= self._every:
            self._flushed = time.monotonic()
            self._flush()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.clear()
                self._stop.wait(_AFTER_YOU)
                while self._step():
                    pass
                # The events of the last moments wait for their turn, too.
                self._stop.wait(max(0.0, self._every - (time.monotonic() - self._flushed)))
                self.flush(now=True)
                self._wake.wait(_LOOK_AGAIN if self._waiting() else None)
        except Stopped:
            pass
        self.flush(now=True)

    def _step(self) -> bool:
        for task in self._tasks:
            start = time.thread_time()
            if task():
                self.breathe(time.thread_time() - start)
                return True
        return False
