"""Being asked to stop: a signal becomes an exception in whatever the process is doing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

ASKING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that ask for an end: of a scheduler, a person, a closed terminal, and of SLURM's
`--signal`, whose default is to end the process on the spot."""

_asked: list[int] = []


class Stopped(SystemExit):
    """The process was asked to stop; its code is 128 and the signal's number, as a shell has it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


class Interruption:
    """Ctrl-C while something worth keeping is made: the first ends that in order, the second ends
    the process."""

    def __init__(self) -> None:
        self.has_begun = False
        self.is_asked = False

    def begin(self) -> None:
        """From here on there is something to keep; before, the first Ctrl-C ends the process."""
        self.has_begun = True

    def take(self) -> bool:
        """Whether this Ctrl-C was answered with an end in order."""
        if not self.has_begun or self.is_asked:
            return False
        self.is_asked = True
        # Not by print: the signal may have come in the middle of one.
        os.write(2, b"\ninterrupted: the clip of the best so far comes; again ends at once\n")
        return True


@contextmanager
def stoppable(interruption: Interruption | None = None) -> Iterator[None]:
    """For the span of a `with`, a signal that asks for an end raises `Stopped`.

    Only the first one does: what is being put in order then is not torn by the next. Signals that
    somebody else handles or ignores (`nohup`) are left to them.

    Args:
        interruption: takes a SIGINT where it can.

    Raises:
        Stopped: from wherever the main thread is; at the end where something swallowed it.
    """
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ASKING:
            number = getattr(signal, name, None)  # Windows has not all of them
            if number is not None and signal.getsignal(number) in untouched:
                before[number] = signal.signal(number, partial(_stop, interruption))
    try:
        yield
        check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _asked.clear()


def check() -> None:
    """Raises `Stopped` again where it was raised and swallowed: finalisers drop exceptions."""
    if _asked:
        raise Stopped(_asked[0])


def _stop(interruption: Interruption | None, number: int, _: FrameType | None) -> None:
    if number == signal.SIGINT and not _asked and interruption is not None and interruption.take():
        return
    if not _asked:
        _asked.append(number)
        check()


def follow(parent: int, every_seconds: float = 0.5) -> None:
    """Asks this process to stop once its parent has gone: it would work on, and nobody knew.

    Args:
        parent: process number of the parent.
        every_seconds: between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
