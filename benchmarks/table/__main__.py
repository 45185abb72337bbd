"""Tables and plots of scored clips.

    python -m benchmarks.table runs/mini --out runs/table
    python -m benchmarks.table ruler/report --measure average --out runs/table

Each of RUNS is a file of rows (a JSON array, or JSON lines), a folder with `table.json`, or a
sweep's or run's folder whose instances have a `score.json`; benchmarks/table/rows.py says what a
row is. Prints the tables, and writes `table.md`, `table.csv` (one line per cell, all digits) and
the plots that the rows can fill: `compute.png`, `steps.png`, `categories.png`, `teachers.png`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.table import csv_rows, measures_of, read_rows
from benchmarks.table.rows import by_setting, checked
from benchmarks.table.text import report
from vlmteach import exits
from vlmteach.record import write_text


def chosen_measure(asked: str | None, measures: list[str]) -> str:
    """The measure on the score axes: the one asked for, else `overall`, else the first.

    Raises:
        ValueError: the rows do not have it, or none at all.
    """
    if not measures:
        raise ValueError("RUNS: got rows without a measure, expected at least one number per row")
    if asked is None:
        return "overall" if "overall" in measures else measures[0]
    if asked not in measures:
        raise ValueError(f"--measure: got {asked!r}, expected one of {measures}")
    return asked


def main() -> int:
    """Prints the tables and writes the files; returns the exit code."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("runs", type=Path, nargs="+", metavar="RUNS")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--measure", help="of plots and categories (default: overall, or the first)")
    cli.add_argument("--against", default="base", help="setting that others are compared with")
    arguments = cli.parse_args()
    try:
        found = [row for path in arguments.runs for row in read_rows(path)]
        rows = checked(found, " and ".join(map(str, arguments.runs)))
        measures = measures_of(rows)
        main_measure = chosen_measure(arguments.measure, measures)
        text = report(rows, measures, main_measure, arguments.against)
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out / "table.md", text)
        write_text(arguments.out / "table.csv", csv_rows(rows, measures))
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(text)
    try:
        from benchmarks.table.plots import write_plots

        plots = write_plots(rows, main_measure, arguments.out)
    except ImportError as error:
        print(f"no plots: {error}; pip install -e '.[benchmarks]'", file=sys.stderr)
        return 0
    names = ", ".join(path.name for path in plots) or "no plot"
    print(
        f"{len(rows)} clips of {len(by_setting(rows))} settings; table.md, table.csv, {names} "
        f"in {arguments.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
