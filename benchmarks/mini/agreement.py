"""How well teacher, judge and classifier agree with the rules, on clips of a measurement.

    python -m benchmarks.mini --n 104 --split tuning --seed 84 \\
        --sweep benchmarks/mini/agreement.yaml --out runs/agreement
    python -m benchmarks.mini.agreement runs/agreement

Each says yes to a clip where its P(yes) is above one half for every query of the task. Where a
setting has several seeds, each of them picks one clip an instance too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.table.rows import Row, by_setting, read_rows
from benchmarks.table.text import grid, shown
from vlmteach import exits
from vlmteach.report.statistics import mean_interval, per_instance

VIEWERS = {"teacher": "p_yes", "judge": "judge_p_yes", "classifier": "classifier_p_yes"}
"""Who -> the measure of its rows."""
YES = 0.5


def told(rows: Sequence[Row], measure: str) -> dict[str, list[float]]:
    """What a viewer is worth on some clips, one value an instance: whether it agrees with the
    rules, whether only it says yes, and whether only they do."""
    views = [
        {
            "key": row["key"],
            "accuracy": (row[measure] > YES) == row["strict"],
            "false yes": row[measure] > YES and not row["strict"],
            "false no": row[measure] <= YES and row["strict"],
        }
        for row in rows
    ]
    return {name: per_instance(views, name) for name in ("accuracy", "false yes", "false no")}


def auroc(rows: Sequence[Row], measure: str) -> str:
    """The probability that a strict success gets the higher P(yes); "-" where all are alike."""
    import torch
    from torchmetrics.classification import BinaryAUROC

    passes = torch.tensor([bool(row["strict"]) for row in rows])
    if passes.all() or not passes.any():
        return "-"
    p_yes = torch.tensor([float(row[measure]) for row in rows], dtype=torch.float64)
    return f"{BinaryAUROC()(p_yes, passes.long()).item():.3f}"


def all_settings(rows: Sequence[Row]) -> str:
    """A line per setting and viewer."""
    lines = []
    for setting, mine in by_setting(rows).items():
        for viewer, measure in VIEWERS.items():
            if seen := [row for row in mine if row.get(measure) is not None]:
                shares = [shown(mean_interval(values)) for values in told(seen, measure).values()]
                strict = shown(mean_interval(per_instance(seen, "strict")))
                lines.append([setting, viewer, strict, *shares, auroc(seen, measure)])
    return grid(["setting", "by", "strict", "accuracy", "false yes", "false no", "AUROC"], lines)


def one_setting(rows: Sequence[Row]) -> str:
    """A line per family: accuracy, false yes, false no and AUROC of each viewer."""
    lines = []
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = [row for row in rows if row["family"] == family]
        cells = [f"{sum(row['strict'] for row in mine)} of {len(mine)}"]
        for measure in VIEWERS.values():
            if any(row.get(measure) is None for row in mine):
                cells.append("-")
                continue
            shares = [f"{fmean(values):.2f}" for values in told(mine, measure).values()]
            cells.append(" / ".join([*shares, auroc(mine, measure)]))
        lines.append([family, *cells])
    return grid(["family", "strict", *VIEWERS], lines)


def picked(rows: Sequence[Row]) -> list[list[str]]:
    """Settings with several seeds: strict success of any seed's clip, of each viewer's pick among
    an instance's seeds, and of an oracle's."""
    lines = []
    for setting, mine in by_setting(rows).items():
        seeds: dict[str, list[Row]] = {}
        for row in mine:
            seeds.setdefault(row["key"], []).append(row)
        count = max(map(len, seeds.values()))
        if count < 2:
            continue
        cells = [setting, str(len(seeds)), str(count)]
        cells.append(shown(mean_interval(per_instance(mine, "strict"))))
        for measure in (*VIEWERS.values(), "strict"):
            if any(row.get(measure) is None for row in mine):
                cells.append("-")
                continue
            best = [max(each, key=lambda row: row[measure]) for each in seeds.values()]
            cells.append(shown(mean_interval(per_instance(best, "strict"))))
        lines.append(cells)
    return lines


def main() -> int:
    """Prints the tables; returns the exit code."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("run", type=Path, help="output folder of `python -m benchmarks.mini`")
    arguments = cli.parse_args()
    try:
        rows = read_rows(arguments.run)
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(all_settings(rows))
    for setting, mine in by_setting(rows).items():
        print(f"## {setting}: accuracy / false yes / false no / AUROC\n\n{one_setting(mine)}")
    if lines := picked(rows):
        picks = [f"{viewer}'s pick" for viewer in (*VIEWERS, "oracle")]
        print(grid(["setting", "n", "seeds", "any", *picks], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
