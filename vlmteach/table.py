"""The last words of a run: what happened to each instance, and why some failed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmteach.text import printable

if TYPE_CHECKING:
    from vlmteach.mini.rule_scores import RuleScores

COLUMNS = 80
"""What the table fits into at least, and exactly where no terminal is wider."""
_HEAD = ("instance", "stop", "updates", "before", "kept", "s")
"""`before` and `kept` are losses: of the base, and of what was delivered."""
_SCORED = ("base", "score", "solved")
_LONGEST_STOP = 11
_SHORTEST_KEY = 12


def table(
    rows: Sequence[dict[str, Any]],
    scores: Mapping[str, RuleScores],
    columns: int | None = None,
) -> str:
    """What happened to each instance that has a result, one line each.

    Args:
        rows: of `results.jsonl`; those of errors are left out, see `errors`.
        scores: by key, of instances that have rules: overall of the base and of the clip, 0..1, and
            strict success.
        columns: characters in a line; long keys are cut in the middle. None: the terminal's, at
            least 80.

    Returns:
        Lines, without one at the end; "" where nothing has a result.
    """
    light = bool(scores) and any(row.get("base_video") == "surrogate" for row in rows)
    scored = (f"{_SCORED[0]}*" if light else _SCORED[0], *_SCORED[1:]) if scores else ()
    lines: list[tuple[str, ...]] = [(*_HEAD, *scored)]
    for row in rows:
        if row.get("status") == "error":
            continue
        before, kept = (
            "-" if row.get(name) is None else f"{row[name]:.4f}"
            for name in ("first_loss", "kept_loss")
        )
        stop = cut(printable(str(row.get("stop_reason") or row.get("method"))), _LONGEST_STOP)
        seconds = f"{row['compute'].get('seconds', 0):.1f}"
        told = (printable(row["key"]), stop, str(row.get("steps", 0)), before, kept, seconds)
        lines.append((*told, *(score_cells(scores.get(row["key"])) if scores else ())))
    if len(lines) == 1:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    columns = columns or max(COLUMNS, shutil.get_terminal_size((COLUMNS, 24)).columns)
    room = columns - sum(width + 2 for width in widths[1:])
    widths[0] = min(widths[0], max(room, _SHORTEST_KEY))
    told = "\n".join(
        "  ".join(
            cell.rjust(width) if column >= 2 else cut(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return f"{told}\n* decoded by the surrogate" if light else told


def errors(rows: Sequence[dict[str, Any]]) -> str:
    """The error rows, with what each says to do, one line each; "" where there are none."""
    return "\n".join(
        f"{printable(row['key'])}: {printable(row['error'].partition(chr(10))[0])}"
        for row in rows
        if row.get("status") == "error"
    )


def score_cells(scored: RuleScores | None) -> tuple[str, str, str]:
    """Base score, score of the clip (overall, 0..1) and strict success."""
    if scored is None:
        return "-", "-", "-"
    before = "-" if scored.before is None else f"{scored.before.overall:.2f}"
    return before, f"{scored.after.overall:.2f}", "yes" if scored.after.strict else "no"


def cut(text: str, length: int) -> str:
    """A text of at most that many characters, 5 or more: a long one loses its middle.

    >>> cut("test/detour/5795967421726", 13)
    'test/...21726'
    """
    if len(text) <= length:
        return text
    tail = (length - 3) // 2
    return f"{text[: length - 3 - tail]}...{text[-tail:]}"
