"""Several runs -> one page: settings with intervals, paired differences, each instance across."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach.report.build import PAGE
from vlmteach.report.charts import Axis, axis_over
from vlmteach.report.read import OUTCOMES, Shown
from vlmteach.report.statistics import mean_interval, paired_difference, per_instance
from vlmteach.report.summary import Facet, facets, main_measure
from vlmteach.rows import FIRST, Row

BASE = "base"
"""The setting that others are compared with, where there is one; else the first."""
COSTS = ("seconds", "reasoner_passes", "updates")
MEANS = ("seconds", "updates")
"""Costs that are shown without an interval: a thousand draws each take their time."""
SEPARATOR = "\x1f"
"""Between an instance's outcomes in what the filters read."""
WIDE = 132
"""Pixels of the drawing of an interval in a cell."""

Interval = dict[str, float]
Read = tuple[str, int, Path, Sequence[Shown]]
"""Setting, seed, the run's folder, its instances."""


@dataclass(frozen=True)
class Column:
    """A setting."""

    name: str
    number: int
    """From 1; tells settings apart in drawings."""
    runs: list[tuple[int, str]]
    """(seed, the run's page, relative to this one's)."""
    n: int
    cells: dict[str, Interval]
    """Measure or cost -> mean over instances, with its interval."""
    difference: Interval | None
    """Of the main measure, minus the base setting's, paired."""


@dataclass(frozen=True)
class Cell:
    """An instance's clip under one setting."""

    shown: Shown
    seed: int
    folder: str
    """The instance's, relative to the page."""


@dataclass(frozen=True)
class Across:
    """An instance under all settings."""

    key: str
    prompt: str
    task: str
    category: str
    first: str
    """Its first frame, relative to the page; empty without one."""
    cells: list[tuple[Column, list[Cell]]]
    outcomes: str
    gain: float | None
    """The best setting's score minus the base setting's."""
    spread: float | None
    """The best setting's score minus the worst's."""
    change: str
    """`differ` where settings do not all end alike."""


def comparison(title: str, place: Path, runs: Sequence[Read]) -> dict[str, Any]:
    """What `comparison.html` needs.

    Args:
        title: of the page.
        place: the folder that the page will lie in, absolute.
        runs: read; several seeds of a setting stand under one name.
    """
    everything = [shown for *_, found in runs for shown in found]
    measure = main_measure(everything)
    rows = [row_of(name, seed, each) for name, seed, _, found in runs for each in found]
    names = list(dict.fromkeys(name for name, *_ in runs))
    against = BASE if BASE in names else names[0] if names else ""
    drawn = measure or "kept_loss"
    columns = [
        _column(n, name, [run for run in runs if run[0] == name], rows, drawn, against, place)
        for n, name in enumerate(names, 1)
    ]
    found: dict[str, dict[str, list[Cell]]] = {}
    """Key -> setting -> its clips."""
    for name, seed, run, instances in runs:
        for shown in instances:
            cell = Cell(shown, seed, f"{_relative(run, place)}/{shown.folder}")
            found.setdefault(shown.key, {}).setdefault(name, []).append(cell)
    across = [_across(key, columns, found[key], against) for key in sorted(found)]
    kinds = [facet for facet in facets(everything) if facet.name in ("category", "task")]
    agree = [("differ", "settings differ"), ("same", "settings agree")]
    counted = [
        (name, told, n) for name, told in OUTCOMES.items() if (n := _having(across, name)) > 0
    ]
    return {
        "title": title,
        "columns": columns,
        "measures": [name for name in measures_of(rows) if name not in COSTS],
        "costs": [name for name in COSTS if any(row.get(name) is not None for row in rows)],
        "measure": drawn,
        "against": against,
        "ranges": _ranges(columns, drawn),
        "scatter": _scatter(columns, drawn),
        "across": across,
        "facets": [
            Facet("outcome", "Any outcome", counted),
            Facet(
                "change", "Settings", [(v, w, sum(a.change == v for a in across)) for v, w in agree]
            ),
            *(_recounted(facet, across) for facet in kinds),
        ],
        "outcomes": OUTCOMES,
    }


def row_of(setting: str, seed: int, shown: Shown) -> Row:
    """An instance as a row of measures and costs."""
    passes = [shown.compute.get(f"reasoner_{way}") for way in ("forwards", "backwards")]
    return {
        "setting": setting,
        "key": shown.key,
        "seed": seed,
        **shown.after,
        **shown.views,
        "kept_loss": shown.kept_loss,
        "seconds": shown.compute.get("seconds"),
        "reasoner_passes": None if None in passes else sum(filter(None, passes)),
        "updates": float(shown.updates) if shown.compute else None,
    }


def measures_of(rows: Sequence[Row]) -> list[str]:
    """What any row has a number for, in the order in which it first appears."""
    return list(
        dict.fromkeys(
            name
            for row in rows
            for name, value in row.items()
            if name not in ("setting", "key", "seed") and value is not None
        )
    )


def _column(
    number: int,
    name: str,
    runs: Sequence[Read],
    rows: Sequence[Row],
    measure: str,
    against: str,
    place: Path,
) -> Column:
    mine = [row for row in rows if row["setting"] == name]
    values = {measured: per_instance(mine, measured) for measured in measures_of(mine)}
    cells = {
        measured: _mean(found) if measured in MEANS else mean_interval(found)
        for measured, found in values.items()
    }
    shared = {r["key"] for r in mine if r.get(measure) is not None} & {
        r["key"] for r in rows if r["setting"] == against and r.get(measure) is not None
    }
    return Column(
        name=name,
        number=number,
        runs=[(seed, f"{_relative(run, place)}/{PAGE}") for _, seed, run, _ in runs],
        n=len({row["key"] for row in mine}),
        cells=cells,
        difference=paired_difference(rows, name, against, measure)
        if shared and name != against
        else None,
    )


def _mean(values: Sequence[float]) -> Interval:
    mean = sum(values) / len(values)
    return {"mean": mean, "low": mean, "high": mean, "n": len(values)}


def _across(
    key: str, columns: Sequence[Column], by_setting: Mapping[str, list[Cell]], against: str
) -> Across:
    cells = [(column, by_setting.get(column.name, [])) for column in columns]
    every = [cell for _, found in cells for cell in found]
    scores = [c.shown.score for c in every if c.shown.score is not None]
    base = [c.shown.score for col, found in cells if col.name == against for c in found]
    known = [score for score in base if score is not None]
    outcomes = {cell.shown.outcome for cell in every}
    told = next((c.shown for c in every if c.shown.prompt), every[0].shown)
    first = next((f"{c.folder}/{FIRST}" for c in every if c.shown.has_first), "")
    return Across(
        key=key,
        prompt=told.prompt,
        task=told.task,
        category=told.category,
        first=first,
        cells=cells,
        outcomes=SEPARATOR.join(sorted(outcomes)),
        gain=max(scores) - sum(known) / len(known) if known else None,
        spread=max(scores) - min(scores) if scores else None,
        change="differ" if len(outcomes) > 1 else "same",
    )


def _having(across: Sequence[Across], outcome: str) -> int:
    return sum(outcome in each.outcomes.split(SEPARATOR) for each in across)


def _recounted(facet: Facet, across: Sequence[Across]) -> Facet:
    """A filter's counts over instances, whatever the number of settings."""
    values = [
        (value, told, sum(getattr(each, facet.name) == value for each in across))
        for value, told, _ in facet.values
    ]
    return Facet(facet.name, facet.label, values)


def _relative(run: Path, place: Path) -> str:
    return Path(os.path.relpath(run.resolve(), place)).as_posix()


@dataclass(frozen=True)
class Range:
    """An interval in pixels."""

    low: float
    mean: float
    high: float


def _range(axis: Axis, cell: Interval) -> Range:
    return Range(axis(cell["low"]), axis(cell["mean"]), axis(cell["high"]))


def _ranges(columns: Sequence[Column], measure: str) -> dict[str, Any]:
    """Setting -> its interval and that of its difference, each on one axis for all settings."""
    cells = {c.name: c.cells[measure] for c in columns if measure in c.cells}
    differences = {c.name: c.difference for c in columns if c.difference is not None}
    drawn: dict[str, Any] = {"mean": {}, "difference": {}, "zero": None}
    if cells:
        axis = _plain_axis([v for cell in cells.values() for v in (cell["low"], cell["high"])])
        drawn["mean"] = {name: _range(axis, cell) for name, cell in cells.items()}
    if differences:
        ends = [v for cell in differences.values() for v in (cell["low"], cell["high"])]
        axis = _plain_axis([0.0, *ends])
        drawn["difference"] = {name: _range(axis, cell) for name, cell in differences.items()}
        drawn["zero"] = axis(0.0)
    return drawn


def _plain_axis(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    return Axis(low, high if high > low else low + 1, 4, WIDE - 4)


def _scatter(columns: Sequence[Column], measure: str) -> dict[str, Any] | None:
    """Settings by what they cost and what they reach, with both intervals, in pixels."""
    price = next(
        (p for p in ("reasoner_passes", "seconds") if all(p in c.cells for c in columns)), None
    )
    found = [c for c in columns if measure in c.cells]
    if price is None or not found:
        return None

    def ends(name: str) -> list[float]:
        return [c.cells[name][end] for c in found for end in ("low", "high")]

    x, y = axis_over(ends(price), 52, 540), axis_over(ends(measure), 220, 16)
    return {
        "points": [(c, _range(x, c.cells[price]), _range(y, c.cells[measure])) for c in found],
        "across": x.ticks(6),
        "up": y.ticks(5),
        "price": price,
    }
