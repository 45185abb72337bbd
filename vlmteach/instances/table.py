"""A plain table of prompts and images: CSV with a header, JSON objects, or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmteach.instances.rows import Row, csv_rows, json_or_parquet_rows
from vlmteach.instances.sample import InstanceError, shown
from vlmteach.instances.write import NewSample

COLUMNS = (
    *("prompt", "image", "key", "frames", "fps", "height", "width", "seed"),
    *("task", "category", "split", "goal", "process"),
)
"""Only `prompt` is required. `image` is a path below the table's folder."""
_EXACT = 2**53  # beyond it a float has lost digits
_NUMBERS = {"frames": int, "height": int, "width": int, "seed": int, "fps": float}


def import_table(source: Path) -> Iterator[NewSample | InstanceError]:
    """The rows of a table, keyed by their `key` or their number.

    Empty cells are left out. `goal` and `process` give the queries; `process` is a JSON list, or
    text with "|" between the questions.
    """
    rows = csv_rows(source) if source.suffix.lower() == ".csv" else json_or_parquet_rows(source)
    for row in rows:
        try:
            yield row if isinstance(row, InstanceError) else _sample(row, source.parent)
        except InstanceError as error:
            yield error


def _sample(row: Row, root: Path) -> NewSample:
    for name in row.cells:
        if name not in COLUMNS:
            raise row.refusal(
                f"column {shown(name)}", "an unknown column", ", ".join(COLUMNS), "rename it"
            )
    row.key = str(_whole(row.cells.get("key", row.key)))
    members = {"prompt.txt": row.prompt()}
    image = row.image("image", "first.png", root)
    if image is not None:
        members["first.png"] = image
    # What is left is the sample's JSON, but for the queries, which have two columns.
    fields = {
        name: _number(name, value)
        for name, value in row.cells.items()
        if name not in ("key", "prompt", "image", "goal", "process")
    }
    queries = {name: row.cells[name] for name in ("goal", "process") if name in row.cells}
    if queries:
        fields["queries"] = {name: _questions(name, value) for name, value in queries.items()}
    return NewSample(row.key, row.source, members, fields=fields)


def _questions(name: str, value: Any) -> Any:
    """The process questions as a list; anything else as it stands, for `decode` to judge."""
    if name == "process" and isinstance(value, str):
        if not value.lstrip().startswith("["):
            return [part for part in value.split("|") if part.strip()]
        with suppress(ValueError):
            return json.loads(value)
    return value


def _number(name: str, value: Any) -> Any:
    """A CSV's number as a number, a whole one without its point (`9.0`, as pandas writes it); what
    is none stays as it is, for `decode` to refuse by name."""
    if name in _NUMBERS and isinstance(value, str):
        with suppress(ValueError):
            return int(value) if _NUMBERS[name] is int else float(value)
        with suppress(ValueError):
            value = float(value) if abs(float(value)) < _EXACT else value
    return _whole(value) if _NUMBERS.get(name) is int else value


def _whole(value: Any) -> Any:
    """A float that is a whole number as one."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if exact else value
