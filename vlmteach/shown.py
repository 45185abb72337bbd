"""What a command shows while it works: one line, written over on a terminal, few lines elsewhere.

Elsewhere is a log file or a pipe: whole lines there, no carriage returns, none per update.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from vlmteach.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from vlmteach.types import Query, Reading

_LINES = 4
"""Of a fit, on what is no terminal; its last reading comes on top."""
_LONGEST_KEY = 24


class RunLine:
    """A run on two levels: instances done of all ranks and time left; the instance at work here.

    Args:
        total: instances.
        finished: those that were before.
        stream: standard error by default.
    """

    def __init__(self, total: int, finished: int, stream: TextIO | None = None) -> None:
        from tqdm import tqdm

        self.stream = stream or sys.stderr
        self.total, self.finished = total, finished
        self.before, self.started = finished, time.monotonic()
        self.bar: tqdm | None = None
        if self.stream.isatty():
            self.bar = tqdm(
                total=total,
                initial=finished,  # the rate is of this launch alone
                file=self.stream,
                dynamic_ncols=True,
                bar_format="{n_fmt}/{total_fmt} done, {remaining} left{postfix}",
            )

    def advance(self, finished: int) -> None:
        """Shows what all ranks have finished together."""
        if self.bar is not None:
            self.bar.n = finished
            self.bar.refresh()
        elif finished > self.finished:
            passed = time.monotonic() - self.started
            left = passed / (finished - self.before) * (self.total - finished)
            told = f"{finished}/{self.total} done, {span(left)} left"
            print(told, file=self.stream, flush=True)
        self.finished = finished

    def read(self, key: str, reading: Reading) -> None:
        """Shows the reading of the instance at work."""
        if self.bar is not None:
            told = f"update {reading.step} loss {reading.loss:.3f}"
            self.bar.set_postfix_str(f"{printable(key)[-_LONGEST_KEY:]} {told}")

    def close(self) -> None:
        """Ends the line, so that what is told next begins one."""
        if self.bar is not None:
            self.bar.close()


class FitLine:
    """One fit: update, loss, P("Yes") of each role, and the time left at most.

    Args:
        steps: updates at most; None for a method that makes none, whose readings are counted.
        stream: standard error by default.
    """

    def __init__(self, steps: int | None, stream: TextIO | None = None) -> None:
        self.steps = steps
        self.stream = stream or sys.stderr
        self.queries: Sequence[Query] = ()
        """As asked, in the order of the readings' P("Yes")."""
        self._started: tuple[float, int] | None = None
        self._told = ""

    def read(self, reading: Reading) -> None:
        """Shows a reading."""
        now = time.monotonic()
        name = "reading" if self.steps is None else "update"
        most = "" if self.steps is None else f"/{self.steps}"
        told = f"{name} {reading.step}{most}  loss {reading.loss:.3f}{self._said(reading)}"
        left = (self.steps or 0) - reading.step
        if self._started is None:
            self._started = now, reading.step
        elif left > 0:
            each = (now - self._started[0]) / (reading.step - self._started[1])
            told += f"  {span(each * left)} left at most"
        if self.stream.isatty():
            self.stream.write(f"\r{told.ljust(len(self._told))}")
            self.stream.flush()
            self._told = told
        elif reading.step % math.ceil((self.steps or _LINES) / _LINES) == 0:
            print(told, file=self.stream, flush=True)
            self._told = ""
        else:
            self._told = told

    def close(self) -> None:
        """Ends the line; elsewhere than on a terminal the last reading is told, if it was not."""
        if self._told:
            print("" if self.stream.isatty() else self._told, file=self.stream, flush=True)
            self._told = ""

    def _said(self, reading: Reading) -> str:
        """The mean P("Yes") of each role, as the dashboards have it."""
        told = ""
        for role in ("goal", "process"):
            pairs = zip(self.queries, reading.p_yes, strict=False)
            values = [p for query, p in pairs if query.role == role]
            if values:
                told += f" {role} {sum(values) / len(values):.2f}"
        return f"  P(yes){told}" if told else ""


def span(seconds: float) -> str:
    """Seconds as a person says them.

    >>> span(7.2), span(200), span(8000)
    ('7 s', '3 min', '2.2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
