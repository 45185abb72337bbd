"""What the settings of a miniature sweep cost, and the picture of quality against price.

    python -m benchmarks.mini --n 312 --seed 6 --sweep benchmarks/mini/frontier.yaml \\
        --out runs/frontier
    python -m benchmarks.mini.price runs/frontier --out runs/price

Counts the reasoner's operations for one instance, from its first evaluation to the delivered clip,
whatever is kept and reused between. A micro-fit's rise by the same amount with each update, so one
instance is solved with one update and again with two. Prints a table; `price.png` has a point a
setting, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sweep import Sweep, options, read_sweep
from benchmarks.table.rows import Row, by_setting, read_rows
from benchmarks.table.text import grid, shown
from vlmteach import exits, fit
from vlmteach.instances import decode, read_samples
from vlmteach.options import parse
from vlmteach.record import write_text
from vlmteach.report.statistics import mean_interval, per_instance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlmteach.config import Config
    from vlmteach.types import Instance

GIGA = 1e9
COST = "reasoner_gflop"
MEASURES = ("strict", "overall", "process", "false_yes", "judge_false_yes", "steps", "seconds")
COUNTED = ("--query.source", "generic", "--fit.threshold", "0")
"""Nobody writes, which the reasoner does not notice, and no fit ends before its updates."""


def reasoner_gflop(config: Config, instance: Instance) -> float:
    """The operations of the reasoner's network for one instance, forward and backward.

    Attention is counted as its two matrix products: torch's counter has no rule for the fused one
    of the CPU.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from vlmteach.methods import Resources, carry_out, load_method
    from vlmteach.models import load

    models = load(config, torch.device("cpu"))
    resources = Resources(config, models, {})
    method = load_method(config.method, resources)
    counter = FlopCounterMode(display=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        carry_out(method, resources, instance, Path(folder))
    by_operation = counter.get_flop_counts()[type(models.reasoner.network).__name__]
    return sum(by_operation.values()) / GIGA


def costs(sweep: Sweep, instance: Instance) -> dict[str, tuple[float, float]]:
    """(GFLOP of a clip before any update, GFLOP of an update) of each setting of a sweep."""
    found = {}
    for setting in sweep.settings:
        config = _config_of(sweep, setting)
        if config.method != "micro_fit":
            found[setting] = (reasoner_gflop(config, instance), 0.0)
            continue
        once, twice = (
            reasoner_gflop(_config_of(sweep, setting, "--fit.steps", steps), instance)
            for steps in ("1", "2")
        )
        found[setting] = (2 * once - twice, twice - once)
    return found


def _config_of(sweep: Sweep, setting: str, *words: str) -> Config:
    given = options(sweep, setting, 0, Path("none"))
    return parse(fit.parser(), [*given, *COUNTED, *words])[1]


def priced(rows: list[Row], by_cost: Mapping[str, tuple[float, float]]) -> list[Row]:
    """The rows of the settings whose cost is known, with it."""
    return [
        {**row, COST: fixed + update * float(row.get("steps") or 0)}
        for row in rows
        if str(row["setting"]) in by_cost
        for fixed, update in [by_cost[str(row["setting"])]]
    ]


def table(rows: list[Row]) -> str:
    """A line a setting, its cost also as a share of the dearest's."""
    settings = by_setting(rows)
    cells = {
        setting: {name: mean_interval(per_instance(mine, name)) for name in (*MEASURES, COST)}
        for setting, mine in settings.items()
    }
    dearest = max(each[COST]["mean"] for each in cells.values())
    lines = [
        [
            setting,
            *(shown(each[name]) for name in MEASURES),
            f"{each[COST]['mean']:.2f}",
            f"{each[COST]['mean'] / dearest:.3f}",
        ]
        for setting, each in cells.items()
    ]
    return grid(["setting", *MEASURES, COST, "share"], lines)


def picture(rows: list[Row]) -> Figure:
    """Strict success and overall score against the reasoner's operations."""
    from benchmarks.table.plots import figure_of, legend, points

    base = per_instance(by_setting(rows)["base"], COST)[0]
    rows = [{**row, "price": float(row[COST]) / base} for row in rows]
    figure, axes = figure_of(9.8, 3.6, 2)
    for axis, name, label in zip(
        axes, ("strict", "overall"), ("strict success", "overall score"), strict=True
    ):
        points(axis, rows, "price", name)
        axis.set_xlabel("reasoner's operations, in plain samples")
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
    legend(figure, axes[0])
    return figure


def main() -> int:
    """Counts, prints and draws; returns the exit code."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.price",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("sweep", type=Path, help="output folder of `python -m benchmarks.mini`")
    cli.add_argument("--out", type=Path, required=True, help="folder for price.md and price.png")
    arguments = cli.parse_args()
    try:
        sweep = read_sweep(arguments.sweep / "sweep.yaml")
        instance = decode(next(read_samples(sweep.instances)))
        text = table(rows := priced(read_rows(arguments.sweep), costs(sweep, instance)))
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out / "price.md", text)
        from benchmarks.table.plots import DPI

        path = arguments.out / "price.png"
        picture(rows).savefig(path, dpi=DPI, metadata={"Software": None})
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
