"""The one row format of all benchmarks: a scored clip as a flat JSON object.

- `setting`, `key`, `seed`: which clip it is: a setting's name, the instance, the run's seed. No two
  rows share all three.
- `category`: optional text, for the table and the plot by category; null: of none.
- `seconds`, `reasoner_forwards`, `reasoner_backwards`, `teacher_calls`, `steps`, `fallbacks`:
  optional; what the clip cost, as in `done.json`.
- `base_p_yes`, `base_passes`: optional; the least P(yes) that the setting's teacher gives any query
  on the instance's base clip, and the judge's verdict on that clip. How good the teacher is is
  read off them.
- Any other number or boolean is a measure; null: not measured.
- Any other text is a label, kept and never shown.

A file of rows is a JSON array, or JSON lines. In a run's folder, the scorer of a benchmark puts the
measures of an instance beside its `done.json`, as `score.json`: an object, or a list that opens
with it. A score with `clip_sha256` counts only for that clip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmteach.report.index import read_index
from vlmteach.rows import COSTS, IDENTITY, Row, rows_of_run

CAPABILITY = ("base_p_yes", "base_passes")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, of a benchmark's output folder, of a sweep's or of one run's.

    Args:
        path: a `.json` or `.jsonl` file of rows; or a folder: its `table.json` where it has one,
            else the `score.json` of every instance of every run below it. A run's own folder is
            always read off its instances, which may have been scored since its `table.json` was
            written; where none has a `score.json`, the teacher's losses are the measures.

    Raises:
        ValueError: names the file, the row and the field, what was got and what was expected.
    """
    if path.is_file():
        return checked(_objects(path), str(path))
    table, is_run = path / "table.json", (path / "config.yaml").is_file()
    if table.is_file() and not is_run:
        return checked(_objects(table), str(table))
    rows = [row for setting, run in _runs(path) for row in rows_of_run(setting, run)]
    if not rows:
        raise ValueError(
            f"{path}: got no rows, expected a file of rows, a folder with table.json, or runs "
            "whose instances have a score.json; score the run first"
        )
    return checked(rows, str(path))


def _objects(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}, expected rows as JSON; see benchmarks.table") from error
    if not isinstance(found, list):
        raise ValueError(f"{path}: got {type(found).__name__}, expected an array of rows")
    return found


def _runs(path: Path) -> list[tuple[str, Path]]:
    """(setting, folder) of a sweep by its index, or of the one run that a folder is."""
    indexed = [(row["setting"], path / row["folder"]) for row in read_index(path)]
    return indexed or [(path.resolve().name, path)]


def checked(rows: Sequence[Any], where: str) -> list[Row]:
    """The same rows, each of them found good.

    Raises:
        ValueError: names the row and the field, what was got and what was expected.
    """
    seen: dict[tuple, int] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            got = type(row).__name__
            raise ValueError(f"{where}, row {number}: got {got}, expected an object")
        for name, kind in IDENTITY.items():
            if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
                raise ValueError(
                    f"{where}, row {number}, field {name}: got {row.get(name)!r}, expected "
                    f"{'a whole number' if kind is int else 'a text'}"
                )
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{where}, row {number}, field {name}: got {value}, expected a finite number, "
                    "or null where nothing was measured"
                )
            if isinstance(value, dict | list):
                raise ValueError(
                    f"{where}, row {number}, field {name}: got {type(value).__name__}, expected a "
                    "number, a boolean, a text or null; a row is flat"
                )
        identity = (row["setting"], row["key"], row["seed"])
        if identity in seen:
            raise ValueError(
                f"{where}, row {number}: got {identity} again, as in row {seen[identity]}, "
                "expected one row per clip; give the settings different names"
            )
        seen[identity] = number
    return list(rows)


def measures_of(rows: Sequence[Row]) -> list[str]:
    """The names of the measures, in the order in which they first appear."""
    known = {*IDENTITY, *COSTS, *CAPABILITY}
    return list(
        dict.fromkeys(
            name
            for row in rows
            for name, value in row.items()
            if name not in known and isinstance(value, int | float)
        )
    )


def by_setting(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each setting, settings in the order in which they first appear."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["setting"], []).append(row)
    return grouped


def categories_of(rows: Sequence[Row]) -> list[str]:
    """The categories that occur, sorted."""
    return sorted({row["category"] for row in rows if isinstance(row.get("category"), str)})
