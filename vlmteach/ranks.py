"""The other ranks of a machine: started by its first one, waited for, and stopped with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vlmteach.launch import RANK_VARIABLE

PATIENCE_SECONDS = 30.0
"""How long a rank that was asked to stop may take before it is killed."""


def same_command() -> list[str]:
    """The command line that started this process."""
    import __main__

    if __main__.__spec__ is None:
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", __main__.__spec__.name, *sys.argv[1:]]


@contextmanager
def others(count: int, command: Sequence[str]) -> Iterator[dict[int, int]]:
    """Ranks 1 to `count` of this machine, for the span of a `with`.

    A rank that dies takes nobody with it. The end of the `with` waits for all; only where it is
    left because this process was asked to stop are they asked too.

    Yields:
        the exit codes by rank, filled in at the end.
    """
    processes: dict[int, subprocess.Popen[bytes]] = {}
    codes: dict[int, int] = {}
    try:
        for rank in range(1, count + 1):
            env = {**os.environ, RANK_VARIABLE: f"{rank}:{os.getpid()}"}
            processes[rank] = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
        try:
            yield codes
        finally:
            if isinstance(sys.exception(), Exception | None):
                for process in processes.values():
                    process.wait()
    finally:
        for process in processes.values():
            process.terminate()
        for rank, process in processes.items():
            try:
                codes[rank] = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[rank] = process.wait()


def told(codes: dict[int, int]) -> str:
    """How the ranks that did not end well ended, in words; "" where all did."""
    return ", ".join(
        f"rank {rank}: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        for rank, code in codes.items()
        if code
    )
