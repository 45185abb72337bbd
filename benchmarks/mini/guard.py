"""Where the guard's limits come from, and how well its warning tells what the rules reject.

    python -m benchmarks.mini --n 104 --split tuning --seed 11 \\
        --sweep benchmarks/mini/guard.yaml --out runs/guard
    python -m benchmarks.mini.guard runs/guard

The protocol, fixed before any clip was looked at. Tuning split only. Every other round of the
families (13 tasks) is for choosing, the others are for telling. A measure's limit is a quantile of
how far it went in the choosing half's clips that the rules accept, the same quantile for all six;
taken is the one with the largest recall minus false alarms (Youden's J) over all fits of the
choosing half, the higher where several are alike. J, as warning of everything has 0. Limits are
rounded to two digits before anything is told, and those of drifts are no lower than compression.

A warning is right where the rules reject the delivered clip (not strict). Shares are means over
tasks, over the fits of a task first, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sweep import Sweep, read_sweep
from benchmarks.table.text import grid, shown
from vlmteach import exits
from vlmteach.guard import (
    DRIFTS,
    LEAST_DRIFT,
    LIMITS,
    MEASURES,
    RISE,
    Guarded,
    read_guard,
    warning_of,
)
from vlmteach.instances import read_held_out
from vlmteach.ledger import folder_name
from vlmteach.mini import world
from vlmteach.mini.rule_scores import kept_scores
from vlmteach.report.statistics import mean_interval, per_instance
from vlmteach.rows import Row

QUANTILES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0)
YES = 0.5
DIGITS = 2
JUDGE = "judge says no"


@dataclass(frozen=True)
class Case:
    """A fit of a task: what the guard sees of it, and what the rules say."""

    setting: str
    key: str
    is_chosen_from: bool
    """Whether it is of the half that the limits are chosen from."""
    guarded: Guarded
    is_rejected: bool
    judge_p_yes: float | None

    @property
    def is_fooled(self) -> bool:
        """Whether the teacher says yes to what the rules reject."""
        return self.is_rejected and (self.guarded.after or 0.0) > YES

    def warns(self, limits: Mapping[str, float]) -> bool:
        """Whether the guard warns under these limits."""
        return bool(warning_of(self.guarded.guard, self.guarded.before, self.guarded.after, limits))


def cases_of(sweep: Sweep, out: Path) -> list[Case]:
    """The fits of a sweep's runs; settings without a guard, plain samples, are left out.

    Raises:
        ValueError: an instance that is no task of the tuning split.
        FileNotFoundError: a run that is not complete.
    """
    found = []
    round_of = len(world.families())
    for number, held in enumerate(read_held_out(sweep.instances)):
        task = world.task_of(held.meta or {})
        if task.split != "tuning":
            raise ValueError(
                f"{held.key}: got the {task.split} split, expected tuning: what is chosen here is "
                "told of elsewhere"
            )
        for setting, _, run in sweep.runs(out):
            folder = run / folder_name(held.key)
            guarded = read_guard(folder)
            if guarded is None:
                continue
            score = kept_scores(task, folder)[0]
            found.append(
                Case(
                    setting,
                    held.key,
                    is_chosen_from=number // round_of % 2 == 0,
                    guarded=guarded,
                    is_rejected=not score["strict"],
                    judge_p_yes=score.get("judge_p_yes"),
                )
            )
    return found


def limits_at(quantile: float, cases: Iterable[Case]) -> dict[str, float]:
    """Measure -> that quantile of how far it went in the clips that the rules accept; of a drift
    at least `LEAST_DRIFT`.

    Raises:
        ValueError: no such clip.
    """
    import torch

    right = [case.guarded.guard for case in cases if not case.is_rejected]
    if not right:
        raise ValueError("got no clip that the rules accept, expected some; run more tasks")
    changes = torch.tensor(
        [[guard.change(name) for name in MEASURES] for guard in right], dtype=torch.float64
    )
    found = zip(MEASURES, changes.quantile(quantile, dim=0).tolist(), strict=True)
    limits = {name: float(f"{limit:.{DIGITS}g}") for name, limit in found}
    return limits | {name: max(limits[name], LEAST_DRIFT) for name in DRIFTS}


def youden(cases: Sequence[Case], limits: Mapping[str, float]) -> float:
    """Share of the rejected that is warned of, minus that of the accepted, -1..1."""
    shares = []
    for is_rejected in (True, False):
        mine = [case.warns(limits) for case in cases if case.is_rejected == is_rejected]
        shares.append(sum(mine) / max(len(mine), 1))
    return shares[0] - shares[1]


def choose(cases: Sequence[Case]) -> tuple[float, dict[str, float]]:
    """The quantile and the limits that tell these cases apart best."""
    best = max(QUANTILES, key=lambda q: (youden(cases, limits_at(q, cases)), q))
    return best, limits_at(best, cases)


def table(cases: Sequence[Case], limits: Mapping[str, float]) -> str:
    """How well the warning, its single measures and the judge's no tell what the rules reject."""
    lines = []
    for half, is_chosen_from in (("chosen from", True), ("told", False)):
        mine = [case for case in cases if case.is_chosen_from == is_chosen_from]
        for setting in dict.fromkeys(["all", *(case.setting for case in mine)]):
            some = [case for case in mine if setting in ("all", case.setting)]
            warned = [case.warns(limits) for case in some]
            lines.append([half, setting, "warning", *_told(some, warned)])
        for name in MEASURES:
            warned = [case.warns({name: limits[name]}) for case in mine]
            lines.append([half, "all", name, *_told(mine, warned)])
        judged = [case for case in mine if case.judge_p_yes is not None]
        refused = [case.judge_p_yes <= YES for case in judged]  # type: ignore[operator]
        lines += [[half, "all", JUDGE, *_told(judged, refused)]] if judged else []
    head = ["half", "setting", "by", "n", "rejected", "warned", "precision", "recall"]
    return grid([*head, "of the fooled"], lines)


def _told(cases: Sequence[Case], warned: Sequence[bool]) -> list[str]:
    """n; shares rejected and warned; of the warned rejected; of the rejected, and of those with the
    teacher's yes, warned."""
    rows: list[Row] = [
        {"key": case.key, "rejected": case.is_rejected, "warned": flag, "fooled": case.is_fooled}
        for case, flag in zip(cases, warned, strict=True)
    ]
    asked = (
        (rows, "rejected"),
        (rows, "warned"),
        ([row for row in rows if row["warned"]], "rejected"),
        ([row for row in rows if row["rejected"]], "warned"),
        ([row for row in rows if row["fooled"]], "warned"),
    )
    cells = [mean_interval(per_instance(some, name)) if some else None for some, name in asked]
    return [str(len(rows)), *(shown(cell) if cell else "-" for cell in cells)]


def main() -> int:
    """Chooses and prints; returns the exit code."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("sweep", type=Path, help="output folder of `python -m benchmarks.mini`")
    arguments = cli.parse_args()
    try:
        cases = cases_of(read_sweep(arguments.sweep / "sweep.yaml"), arguments.sweep)
        quantile, limits = choose([case for case in cases if case.is_chosen_from])
        text = table(cases, limits)
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(text)
    print(f"quantile {quantile:g}, the teacher's rise at least {RISE:g}, limits:")
    for name, limit in limits.items():
        told = "as in vlmteach/guard.py" if LIMITS.get(name) == limit else "not in the package"
        print(f"  {name} {limit:g} ({told})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
