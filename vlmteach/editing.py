"""Queries opened in the user's editor, and checked as the teacher's own are."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vlmteach.queries import MAX_PROCESS, parse_queries
from vlmteach.text import decode_text, printable, read_file
from vlmteach.types import Query, QuerySet

HEAD = f"""\
# The questions the video will be judged by: one goal, one to {MAX_PROCESS} process queries.
# "Yes" must be the good answer. Lines that begin with # are left out.
"""
LARGEST = 64 * 2**10
"""Bytes of an edited file."""


def editor() -> list[str]:
    """The words of `$EDITOR`; no shell reads them.

    Raises:
        ValueError: none is set, or its program is not there.
    """
    told = os.environ.get("EDITOR", "")
    try:
        words = shlex.split(told)
    except ValueError as error:
        raise ValueError(f"EDITOR: got {told!r} ({error}), expected a command; set it") from error
    if not words or shutil.which(words[0]) is None:
        raise ValueError(
            f"EDITOR: got {told or 'none'}, expected the command of an editor; export EDITOR=nano"
        )
    return words


def edited(queries: QuerySet, command: Sequence[str]) -> QuerySet:
    """The queries after somebody has edited them; as they are where nothing was changed.

    On a terminal a fault is told and the editor opened again.

    Args:
        queries: all that the instance has.
        command: from `editor`; the file's name comes last.

    Returns:
        The queries with source `edited`; replies and refusals of the teacher are kept.

    Raises:
        ValueError: the first fault found, where nobody can be asked; or an editor that failed.
    """
    with tempfile.TemporaryDirectory(prefix="vlmteach-") as folder:
        path = Path(folder) / "queries.txt"
        before = HEAD + as_text(queries.queries)
        path.write_text(before, encoding="utf-8")
        while True:
            _open(command, path)
            try:
                text = decode_text(read_file(path, LARGEST))
                if text == before:
                    return queries
                return replace(queries, queries=from_text(text), source="edited")
            except ValueError as fault:
                if not sys.stdin.isatty():
                    raise ValueError(f"--edit-queries: {fault}") from fault
                print(printable(str(fault)), file=sys.stderr)
                input("Enter opens the editor again, Ctrl-C ends: ")


def as_text(queries: Sequence[Query]) -> str:
    """A line a query: its role and its text."""
    return "".join(f"{query.role}: {query.text}\n" for query in queries)


def from_text(text: str) -> tuple[Query, ...]:
    """The queries in an edited text, the goal first.

    Raises:
        ValueError: the first fault found, as in a teacher's reply.
    """
    found: dict[str, list[str]] = {"goal": [], "process": []}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        role, _, asked = line.partition(":")
        if role.strip() not in found:
            raise ValueError(
                f"line {number}: got {line!r}, expected goal: or process: and a question"
            )
        found[role.strip()].append(asked.strip())
    if len(found["goal"]) != 1:
        raise ValueError(f"got {len(found['goal'])} goal queries, expected one")
    reply = {"goal": found["goal"][0], "process": found["process"]}
    return parse_queries(json.dumps(reply), max_process=MAX_PROCESS)


def _open(command: Sequence[str], path: Path) -> None:
    """Waits for the editor; Ctrl-C meanwhile is the editor's alone."""
    with ExitStack() as stack:
        terminal = None
        if not sys.stdin.isatty():  # standard input may have brought the instances
            try:
                terminal = stack.enter_context(open("/dev/tty", "rb"))
            except OSError:
                terminal = subprocess.DEVNULL
        process = stack.enter_context(subprocess.Popen([*command, str(path)], stdin=terminal))
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGINT, handler)
    if code:
        raise ValueError(f"EDITOR: {command[0]} ended with {code}, expected 0; nothing was fitted")
