"""The judge's rows: one JSON object a line, appended and never changed."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.ruler.asking import LABELS
from vlmteach.instances.ruler import METRICS


@dataclass(frozen=True, slots=True)
class Identity:
    """What a row is about: with any of it changed, it is another row."""

    model: str
    task: str
    index: str
    video: str
    """sha256 of the file."""
    item: str
    """`Item.digest`."""
    judge: str
    prompt: str


def read_rows(path: Path) -> dict[Identity, dict[str, Any]]:
    """The rows of a file by identity; a verdict stands, and of errors the last one counts.

    A last line without an end is passed over: its writer was stopped.

    Raises:
        ValueError: a line that is no row.
    """
    rows: dict[Identity, dict[str, Any]] = {}
    if not path.exists():
        return rows
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            identity = Identity(**{f.name: str(row[f.name]) for f in fields(Identity)})
            if row["status"] == "done":
                fine = all(m in METRICS and v in LABELS for m, v in row["labels"])
                if not fine or not row["labels"]:
                    raise ValueError(f"labels {row['labels']!r:.80}")
            elif row["status"] != "error":
                raise ValueError(f"status {row['status']!r:.80}")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: got {type(error).__name__}: {error}, expected a row of "
                "the judge; remove the line"
            ) from error
        if rows.get(identity, {}).get("status") != "done":
            rows[identity] = row
    return rows


class RowsFile:
    """A file of rows open for appending, by this process alone.

    Raises:
        ValueError: another process has it open, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._lock = threading.Lock()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ValueError(
                f"--rows {path}: got a file that another process is writing, expected one to "
                "itself; wait for it, or name another"
            ) from None
        try:
            self._cut_torn_line(path)
            self.known = read_rows(path)
        except BaseException:
            self._file.close()
            raise

    def _cut_torn_line(self, path: Path) -> None:
        """A process that was killed may have left half a line; the next must not continue it."""
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)

    def append(self, row: dict[str, Any]) -> None:
        """Writes a row to the disk before it returns; called from any thread."""
        line = json.dumps(row, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
