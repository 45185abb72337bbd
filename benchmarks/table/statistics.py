"""Summaries, teachers and fits of rows; means and intervals are those of the reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.table.rows import Row, by_setting
from vlmteach.report.statistics import mean_interval, per_instance

YES = 0.5


def summarize(rows: Sequence[Row], measures: Sequence[str]) -> list[dict[str, Any]]:
    """One object per setting, in the order they first appear: measure -> mean and interval.

    `n` counts instances, `clips` rows. A measure that some row of a setting lacks is left out.
    """
    summary = []
    for setting, mine in by_setting(rows).items():
        cells = {
            measure: mean_interval(per_instance(mine, measure))
            for measure in measures
            if all(row.get(measure) is not None for row in mine)
        }
        n = len({row["key"] for row in mine})
        summary.append({"setting": setting, "n": n, "clips": len(mine), **cells})
    return summary


@dataclass(frozen=True)
class Teacher:
    """How well a setting's teacher judges base clips, and what the setting reached with it."""

    setting: str
    n: int
    """Base clips."""
    accuracy: dict[str, float]
    """Share of base clips whose yes or no agrees with the judge's, with its interval."""
    auroc: float
    """Area under the ROC curve of its P(yes) against the judge's verdict, 0 to 1."""
    result: dict[str, float]
    """The measure of the setting's own clips, with its interval."""


def teachers(rows: Sequence[Row], measure: str) -> list[Teacher]:
    """The teachers of the settings that say what theirs thought of the base clips.

    Settings whose base clips all pass or all fail are left out: nothing tells their teachers apart.
    """
    import torch
    from torchmetrics.classification import BinaryAUROC

    found = []
    for setting, mine in by_setting(rows).items():
        told = [r for r in mine if r.get("base_p_yes") is not None and r.get(measure) is not None]
        told = [row for row in told if row.get("base_passes") is not None]
        if len({bool(row["base_passes"]) for row in told}) < 2:
            continue
        p_yes = torch.tensor([float(row["base_p_yes"]) for row in told])
        passes = torch.tensor([bool(row["base_passes"]) for row in told])
        agrees = ((p_yes > YES) == passes).tolist()
        keyed = [{"key": r["key"], "agrees": a} for r, a in zip(told, agrees, strict=True)]
        found.append(
            Teacher(
                setting=setting,
                n=len(told),
                accuracy=mean_interval(per_instance(keyed, "agrees")),
                auroc=BinaryAUROC()(p_yes, passes.long()).item(),
                result=mean_interval(per_instance(told, measure)),
            )
        )
    return found


def r_squared(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """(intercept, slope, R squared) of the least-squares line y = intercept + slope x.

    Raises:
        ValueError: fewer than three points, or points above each other: a line through two points
            explains them whatever they are.
    """
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError(
            f"R squared: got the points {list(zip(x, y, strict=True))}, expected three"
        )
    import torch
    from torchmetrics.regression import R2Score

    across = torch.tensor(x, dtype=torch.float64)
    up = torch.tensor(y, dtype=torch.float64)
    design = torch.stack([torch.ones_like(across), across], dim=1)  # [points, 2]
    line = torch.linalg.lstsq(design, up).solution
    explained = R2Score().set_dtype(torch.float64)(design @ line, up).item()
    return line[0].item(), line[1].item(), explained
