"""The command ``loom``: one line for every error, exit status 0 done, 1 a fault in the input, 2 wrong usage.

Results go to standard output, everything else to standard error. Ctrl-C and a polite kill end a command as an
error would: what it had begun to write is removed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ..errors import LoomError, MissingExtraError

DONE, FAULT, USAGE, INTERRUPTED = 0, 1, 2, 130


class Stopped(Exception):
    """A command that was asked to stop, and did so in an orderly way; its text says what is kept."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, without the program's name; returns the exit status."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        try:
            from .app import run
        except ModuleNotFoundError as error:
            if error.name not in ("typer", "rich"):
                raise
            raise MissingExtraError(error.name, "cli", "the command line") from None
        return run(sys.argv[1:] if arguments is None else list(arguments))
    except LoomError as error:
        return fail(error.message)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except OSError as error:
        return fail(os_message(error))
    except Stopped as stopped:
        if str(stopped):  # of several processes, one speaks
            fail(str(stopped))
        return INTERRUPTED
    except KeyboardInterrupt:
        print("loom: stopped; nothing was left half-written", file=sys.stderr)
        return INTERRUPTED


def fail(message: str) -> int:
    """One line on standard error."""
    print(f"loom: {' '.join(message.split())}", file=sys.stderr)
    return FAULT


def os_message(error: OSError) -> str:
    """What the system says of a file, as a line for people."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file. Check the path."
    return f"{error.filename}: {error.strerror}." if error.filename else str(error)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
