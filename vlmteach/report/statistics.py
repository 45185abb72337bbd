"""Means and paired differences of rows with their intervals; all draws are seeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from vlmteach.rows import Row

if TYPE_CHECKING:
    from torchmetrics.wrappers import BootStrapper

DRAWS = 1000


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
