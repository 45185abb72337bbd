"""Processes of launches that a benchmark has started."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def alive(sessions: Collection[int]) -> list[int]:
    """Process numbers of some sessions, those left out that have ended; Linux.

    Args:
        sessions: numbers of the processes that began them (`start_new_session`).
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) in sessions and state not in "ZX":
            found.append(int(stat.parent.name))
    return found
