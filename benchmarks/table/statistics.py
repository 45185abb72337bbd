"""Means, differences and fits of rows, through torchmetrics; all draws are seeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from benchmarks.table.rows import Row, by_setting

if TYPE_CHECKING:
    from torchmetrics.wrappers import BootStrapper

DRAWS = 1000
YES = 0.5


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % bootstrap interval over instances: `{"mean", "low", "high", "n"}`.

    The draws are seeded, so that the same rows give the same table.
    """
    return dict(_mean_interval(tuple(float(value) for value in values)))


@lru_cache(maxsize=4096)  # table, file and plots show the same cells
def _mean_interval(values: tuple[float, ...]) -> dict[str, float]:
    if min(values) == max(values):
        return {"mean": values[0], "low": values[0], "high": values[0], "n": len(values)}
    import torch

    tensor = torch.tensor(values, dtype=torch.float64)
    metric = _bootstrap()
    metric.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        metric.update(tensor)
    low, high = metric.compute()["quantile"].tolist()
    return {"mean": tensor.mean().item(), "low": low, "high": high, "n": len(tensor)}


@lru_cache(maxsize=1)  # making its thousand metrics takes longer than using them
def _bootstrap() -> BootStrapper:
    import torch
    from torchmetrics.aggregation import MeanMetric
    from torchmetrics.wrappers import BootStrapper

    return BootStrapper(
        MeanMetric().set_dtype(torch.float64),
        num_bootstraps=DRAWS,
        mean=False,
        std=False,
        quantile=torch.tensor([0.025, 0.975], dtype=torch.float64),
        sampling_strategy="multinomial",
    )


def per_instance(rows: Iterable[Row], measure: str) -> list[float]:
    """One value per instance, the mean over its seeds: clips of one instance are not independent,
    so that more seeds must not make an interval over instances narrower than more instances do.
    Rows without the measure are left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(measure) is not None:
            values.setdefault(row["key"], []).append(float(row[measure]))
    return [sum(each) / len(each) for each in values.values()]


def paired_difference(
    rows: Iterable[Row], setting: str, against: str, measure: str
) -> dict[str, float]:
    """`setting` minus `against` on the clips (instance and seed) both have, with its interval over
    instances."""
    values: dict[str, dict[tuple, float]] = {setting: {}, against: {}}
    for row in rows:
        if row["setting"] in values and row.get(measure) is not None:
            values[row["setting"]][row["key"], row["seed"]] = float(row[measure])
    ours, theirs = values[setting], values[against]
    differences = [
        {"key": key, "difference": ours[key, seed] - theirs[key, seed]}
        for key, seed in ours
        if (key, seed) in theirs
    ]
    return mean_interval(per_instance(differences, "difference"))


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
