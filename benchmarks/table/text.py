"""Summaries as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from benchmarks.table.rows import COSTS, Row, by_setting, categories_of
from benchmarks.table.statistics import r_squared, summarize, teachers
from vlmteach.report.statistics import mean_interval, paired_difference, per_instance

CSV_FIELDS: tuple[str, ...] = ("setting", "category", "measure", "n", "mean", "low", "high")


def shown(cell: dict[str, float], sign: str = "") -> str:
    """`mean [low, high]`; large numbers with as many decimals as they deserve."""
    decimals = 3 if abs(cell["mean"]) < 100 else 1
    mean, low, high = (f"{cell[name]:{sign}.{decimals}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _name(setting: str) -> str:
    return setting.replace("|", "\\|").replace("\n", " ")


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    separators = ["| " + " | ".join(row) + " |" for row in rows]
    separators[1] = separators[1].replace(" ", "")
    return "\n".join(separators) + "\n"


def markdown(summary: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    """A table with `mean [low, high]` in each cell."""
    lines = [
        [
            _name(row["setting"]),
            str(row["n"]),
            *(shown(row[measure]) if measure in row else "-" for measure in measures),
        ]
        for row in summary
    ]
    return grid(["setting", "n", *measures], lines)


def report(rows: Sequence[Row], measures: Sequence[str], main: str, against: str | None) -> str:
    """All tables of some rows: measures, differences, categories, cost, teachers."""
    settings = by_setting(rows)
    parts = [
        "Means over instances (over seeds first), with 95 % bootstrap intervals.\n",
        markdown(summarize(rows, measures), measures),
    ]
    counts = {len({(row["key"], row["seed"]) for row in mine}) for mine in settings.values()}
    if len(counts) > 1:
        parts.append(
            f"Settings do not have the same clips: {min(counts)} to {max(counts)} of them. "
            "Differences are taken on shared ones.\n"
        )
    if against in settings:
        shared = [s for s in settings if s != against and _share(settings[s], settings[against])]
        lines = [
            [_name(s), *_differences(rows, s, against, measures)] for s in shared if s != against
        ]
        parts += [f"## Minus {against}, paired\n", grid(["setting", "n", *measures], lines)]
    if categories := categories_of(rows):
        lines = [
            [_name(s), *(_category_cell(mine, name, main) for name in categories)]
            for s, mine in settings.items()
        ]
        parts += [f"## {main} by category\n", grid(["setting", *categories], lines)]
    if costs := [name for name in COSTS if any(row.get(name) is not None for row in rows)]:
        parts += ["## Cost per clip\n", markdown(summarize(rows, costs), costs)]
    return "\n".join(parts + _teacher_part(rows, main))


def _share(ours: Sequence[Row], theirs: Sequence[Row]) -> bool:
    return bool({(r["key"], r["seed"]) for r in ours} & {(r["key"], r["seed"]) for r in theirs})


def _differences(rows: Sequence[Row], setting: str, against: str, measures: Sequence[str]) -> list:
    """The cells of one line: n, then a difference per measure."""
    cells = []
    for measure in measures:
        have = {row["setting"] for row in rows if row.get(measure) is not None}
        both = {setting, against} <= have
        cells.append(paired_difference(rows, setting, against, measure) if both else None)
    n = max((cell["n"] for cell in cells if cell), default=0)
    return [str(n), *(shown(cell, "+") if cell else "-" for cell in cells)]


def _category_cell(rows: Sequence[Row], category: str, measure: str) -> str:
    values = per_instance([row for row in rows if row.get("category") == category], measure)
    return f"{shown(mean_interval(values))}, n {len(values)}" if values else "-"


def _teacher_part(rows: Sequence[Row], measure: str) -> list[str]:
    found = teachers(rows, measure)
    if not found:
        return []
    lines = [
        [_name(t.setting), str(t.n), shown(t.accuracy), f"{t.auroc:.3f}", shown(t.result)]
        for t in found
    ]
    header = ["setting", "base clips", "accuracy", "AUROC", measure]
    parts = ["## Teachers on base clips\n", grid(header, lines)]
    try:
        _, _, explained = r_squared([t.auroc for t in found], [t.result["mean"] for t in found])
    except ValueError:
        return parts
    return [*parts, f"R squared of {measure} on AUROC: {explained:.3f} (n = {len(found)}).\n"]


def csv_rows(rows: Sequence[Row], measures: Sequence[str]) -> str:
    """One line per setting, category (empty: all) and measure or cost, with n and interval.

    Numbers have all their digits, so that reading the file back gives the same values.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for setting, mine in by_setting(rows).items():
        for category in ("", *categories_of(mine)):
            chosen = [r for r in mine if not category or r.get("category") == category]
            for measure in (*measures, *COSTS):
                if values := per_instance(chosen, measure):
                    cell = mean_interval(values)
                    line = {"setting": setting, "category": category, "measure": measure, **cell}
                    writer.writerow(line)
    return text.getvalue()
