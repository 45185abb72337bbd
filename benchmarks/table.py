"""Rows to tables: every cell with its interval, every table with its n."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torchmetrics.aggregation import MeanMetric
from torchmetrics.wrappers import BootStrapper

DRAWS = 1000


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % bootstrap interval over instances: `{"mean", "low", "high", "n"}`.

    The draws are seeded, so that the same rows give the same table.
    """
    tensor = torch.tensor(list(values), dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        metric = BootStrapper(
            MeanMetric().set_dtype(torch.float64),
            num_bootstraps=DRAWS,
            mean=False,
            std=False,
            quantile=torch.tensor([0.025, 0.975], dtype=torch.float64),
            sampling_strategy="multinomial",
        )
        metric.update(tensor)
        low, high = metric.compute()["quantile"].tolist()
    return {"mean": tensor.mean().item(), "low": low, "high": high, "n": len(tensor)}


def paired_difference(
    rows: Iterable[dict[str, Any]], setting: str, against: str, measure: str
) -> dict[str, float]:
    """`setting` minus `against` on the instances (and seeds) both have, with its interval."""
    by_setting: dict[str, dict[tuple, float]] = {setting: {}, against: {}}
    for row in rows:
        if row["setting"] in by_setting:
            by_setting[row["setting"]][row["key"], row["seed"]] = float(row[measure])
    ours, theirs = by_setting[setting], by_setting[against]
    return mean_interval([ours[key] - theirs[key] for key in ours if key in theirs])


def summarize(rows: Sequence[dict[str, Any]], measures: Sequence[str]) -> list[dict[str, Any]]:
    """One object per setting, in the order they first appear: measure -> mean and interval."""
    summary = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        cells = {
            measure: mean_interval([float(row[measure]) for row in mine])
            for measure in measures
            if all(row.get(measure) is not None for row in mine)
        }
        summary.append({"setting": setting, "n": len(mine), **cells})
    return summary


def markdown(summary: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    """A table with `mean [low, high]` in each cell."""

    def cell(row: dict[str, Any], measure: str) -> str:
        if measure not in row:
            return "-"
        value = row[measure]
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    lines = [
        "| setting | n | " + " | ".join(measures) + " |",
        "|---|---|" + "---|" * len(measures),
    ]
    for row in summary:
        cells = " | ".join(cell(row, measure) for measure in measures)
        lines.append(f"| {row['setting']} | {row['n']} | {cells} |")
    return "\n".join(lines) + "\n"
