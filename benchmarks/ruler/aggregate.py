"""Labels to RULER's scores: its official aggregate, the instance mean and the task mean.

Good, Medium and Poor count 2, 1 and 0. A video's score in a metric is the mean over the metric's
questions, 0 where it has none, and is shown in percent of 2. Vision rule has no Instruction
Following: its videos have no score in it and their average is over the other three metrics.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.aggregation import MeanMetric
from torchmetrics.wrappers import BootStrapper, MultioutputWrapper

from benchmarks.ruler.asking import LABELS
from vlmteach.instances.ruler import CATEGORIES, METRICS
from vlmteach.report.statistics import DRAWS

WITHOUT_METRIC = {"vision rule": "Instruction Following"}
COLUMNS = (*METRICS, "average")
SCALE = 100 / max(LABELS.values())


@dataclass(frozen=True, slots=True)
class Scored:
    """One judged video."""

    task: str
    category: str
    values: tuple[float, ...]
    """0 to 100 per column of `COLUMNS`; NaN in a metric that the category does not have."""


def scored(task: str, category: str, labels: Sequence[Sequence[str]]) -> Scored:
    """A video's scores from its (metric, label) pairs."""
    values = []
    for metric in METRICS:
        if WITHOUT_METRIC.get(category) == metric:
            values.append(float("nan"))
            continue
        points = [LABELS[label] for name, label in labels if name == metric]
        values.append(SCALE * sum(points) / len(points) if points else 0.0)
    average = torch.tensor(values, dtype=torch.float64).nanmean().item()
    return Scored(task, category, (*values, average))


def official(categories: Tensor) -> Tensor:
    """RULER's overall: per metric the mean over categories, then the mean of the four.

    Args:
        categories: [..., categories, at least 4], a category's mean per metric, NaN in a metric
            that it does not have.

    Returns:
        [..., 5], the four metrics and their mean.
    """
    metrics = categories[..., : len(METRICS)].nanmean(-2)  # [..., C, 4] -> [..., 4]
    return torch.cat([metrics, metrics.mean(-1, keepdim=True)], -1)


def unweighted(strata: Tensor) -> Tensor:
    """The mean over strata of each column, [..., S, 5] -> [..., 5]: every task counts the same."""
    return strata.nanmean(-2)


def aggregates(videos: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """All aggregates of one model's videos under one judge.

    Returns:
        Name of the aggregate -> column -> `{"mean", "low", "high", "n"}`, the 95 % bootstrap
        interval over videos drawn anew within each category (official), within each task (task
        mean) or from all (instance mean). The official aggregate is left out where a category
        has no video: it is defined over all of them.
    """
    return {
        "official": _over_groups(videos, "category", official, CATEGORIES),
        "instance mean": _over_groups(videos, None, unweighted),
        "task mean": _over_groups(videos, "task", unweighted),
        "official without game": _over_groups(
            _without_game(videos), "category", official, [c for c in CATEGORIES if c != "game"]
        ),
        "instance mean without game": _over_groups(_without_game(videos), None, unweighted),
        "task mean without game": _over_groups(_without_game(videos), "task", unweighted),
    }


def by_group(videos: Sequence[Scored], attribute: str) -> dict[str, dict[str, Any]]:
    """Each category's, or each task's, own means: group -> column -> mean and interval."""
    return {
        name: _cells(*(part[..., 0, :] for part in _means([group])), n=len(group))
        for name, group in _groups(videos, attribute).items()
    }


def _without_game(videos: Sequence[Scored]) -> list[Scored]:
    return [video for video in videos if video.category != "game"]


def _groups(videos: Sequence[Scored], attribute: str | None) -> Mapping[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for video in videos:
        groups.setdefault(getattr(video, attribute) if attribute else "", []).append(video)
    return dict(sorted(groups.items()))


def _over_groups(
    videos: Sequence[Scored],
    attribute: str | None,
    combine: Any,
    required: Sequence[str] = (),
) -> dict[str, Any]:
    groups = _groups(videos, attribute)
    if not groups or set(required) - groups.keys():
        return {}
    points, draws = _means(list(groups.values()))
    return _cells(combine(points), combine(draws), n=len(videos))


def _means(groups: Sequence[Sequence[Scored]]) -> tuple[Tensor, Tensor]:
    """Each group's mean per column: [groups, 5], and as many for each draw, [draws, groups, 5]."""
    pairs = [_bootstrapped(tuple(video.values for video in group), DRAWS) for group in groups]
    points, draws = zip(*pairs, strict=True)
    return torch.stack(points), torch.stack(draws, 1)


@functools.lru_cache(maxsize=1024)  # the same task stands in several aggregates
def _bootstrapped(values: tuple[tuple[float, ...], ...], draws: int) -> tuple[Tensor, Tensor]:
    """Mean per column, [5], and the means of as many videos drawn with replacement, [draws, 5]."""
    table = torch.tensor(values, dtype=torch.float64)
    point, strap = _columns_mean(), _strap(draws)
    point.update(table)
    strap.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same rows give the same table
        strap.update(table)
    return point.compute(), strap.compute()["raw"]


def _columns_mean() -> MultioutputWrapper:
    mean = MeanMetric(nan_strategy="ignore").set_dtype(torch.float64)
    return MultioutputWrapper(mean, num_outputs=len(COLUMNS), remove_nans=False)


@functools.cache
def _strap(draws: int) -> BootStrapper:
    """Made once: copying its metrics takes longer than drawing."""
    return BootStrapper(
        _columns_mean(),
        num_bootstraps=draws,
        mean=False,
        std=False,
        raw=True,
        sampling_strategy="multinomial",
    )


def _cells(point: Tensor, draws: Tensor, n: int) -> dict[str, Any]:
    """Column -> mean and interval, from [5] and [draws, 5]; a column of NaN is left out."""
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    cells = {}
    for number, column in enumerate(COLUMNS):
        mean, drawn = point[number], draws[:, number]
        if not mean.isnan():
            low, high = drawn.nanquantile(quantiles).tolist()
            cells[column] = {"mean": mean.item(), "low": low, "high": high, "n": n}
    return cells
