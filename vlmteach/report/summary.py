"""The numbers and drawings of one run's page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach.report.charts import Axis, Bar, axis_over, bins, polyline, tally
from vlmteach.report.guarded import lines_of, sweep_of
from vlmteach.report.read import CHANGES, OUTCOMES, VERDICT, WARNINGS, Shown

PASSES = ("reasoner_forwards", "reasoner_backwards")
LEFT, RIGHT = 34, 312
TOP, BOTTOM = 8, 96
"""Pixels of the plot in an instance's drawings, 320 x 120."""
BOX = {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
LONGEST_CONFIG = 100_000
"""Characters of `config.yaml` that are shown."""


@dataclass(frozen=True)
class Curves:
    """An instance's loss and P(yes) over its updates, in pixels."""

    loss: tuple[str, ...]
    """`points` of the pieces of the curve."""
    p_yes: tuple[str, ...]
    """`points`, one curve a query."""
    steps: list[tuple[float, str]]
    """Ticks, shared by both."""
    losses: list[tuple[float, str]]
    shares: list[tuple[float, str]]
    places: tuple[float, ...]
    """Of each reading, across."""
    kept: float | None
    """Of the kept reading, across."""


def curves(shown: Shown) -> Curves | None:
    """The drawings of an instance; None where there are fewer than two readings."""
    if len(shown.steps) < 2 or shown.steps[-1] <= shown.steps[0]:
        return None
    across = Axis(shown.steps[0], shown.steps[-1], LEFT, RIGHT)
    finite = [loss for loss in shown.losses if loss is not None]
    down = Axis(min([0.0, *finite]), max([*finite, 0.1]) * 1.05, BOTTOM, TOP)
    shares = Axis(0, 1, BOTTOM, TOP)
    whole = [tick for tick in across.ticks(5) if "." not in tick[1]]
    return Curves(
        loss=polyline(across, down, shown.steps, shown.losses),
        p_yes=tuple(
            " ".join(polyline(across, shares, shown.steps, query.p_yes))
            for query in shown.queries
            if query.p_yes
        ),
        steps=whole,
        losses=down.ticks(3),
        shares=shares.ticks(2),
        places=tuple(across(step) for step in shown.steps),
        kept=across(shown.kept_step) if shown.kept_step in shown.steps else None,
    )


@dataclass(frozen=True)
class Point:
    """An instance in the drawing of quality against price."""

    shown: Shown
    x: float
    y: float
    base_y: float | None


@dataclass(frozen=True)
class Scatter:
    """Quality against price."""

    points: list[Point]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    quality: str
    price: str


def scatter(instances: Sequence[Shown], measure: str | None) -> Scatter | None:
    """Score against seconds; where nothing is scored, the loss that was kept."""
    placed = [
        (each, each.compute["seconds"], each.score if measure else each.kept_loss, each.base_score)
        for each in instances
        if "seconds" in each.compute
    ]
    known = [(each, x, y, base) for each, x, y, base in placed if y is not None]
    if not known:
        return None
    x_axis = axis_over((x for _, x, _, _ in known), 48, 540)
    heights = [y for _, _, y, _ in known] + [b for *_, b in known if b is not None]
    y_axis = axis_over(heights, 220, 16)
    return Scatter(
        points=[
            Point(each, x_axis(x), y_axis(y), None if base is None else y_axis(base))
            for each, x, y, base in known
        ],
        across=x_axis.ticks(6),
        up=y_axis.ticks(5),
        quality=measure or "kept loss",
        price="seconds",
    )


@dataclass(frozen=True)
class Facet:
    """What a filter offers: (value, words, how many instances)."""

    name: str
    label: str
    values: list[tuple[str, str, int]]


def facets(instances: Sequence[Shown]) -> list[Facet]:
    """The filters that tell instances of this run apart."""
    offered = [
        Facet("outcome", "Outcome", _counted((i.outcome for i in instances), OUTCOMES)),
        Facet("change", "Against base", _counted((i.change for i in instances), CHANGES)),
        Facet("guard", "Guard", _counted((i.watched for i in instances), WARNINGS)),
        Facet("category", "Category", _counted(i.category for i in instances)),
        Facet("task", "Task", _counted(i.task for i in instances)),
    ]
    return [facet for facet in offered if len(facet.values) > 1 or facet.name == "outcome"]


def _counted(
    values: Iterable[str], names: dict[str, str] | None = None
) -> list[tuple[str, str, int]]:
    bars = [bar for bar in tally(values) if bar.label]
    if names is None:
        return [(bar.label, bar.label, bar.count) for bar in sorted(bars, key=lambda b: b.label)]
    counts = {bar.label: bar.count for bar in bars}
    return [(value, told, counts[value]) for value, told in names.items() if value in counts]


@dataclass(frozen=True)
class Figure:
    """One of the numbers at the top of a page."""

    label: str
    value: str
    told: str = ""
    outcome: str = ""
    """A filter that it leads to."""


def figures(instances: Sequence[Shown], measure: str | None) -> list[Figure]:
    """The run in a handful of numbers."""
    finished = [each for each in instances if each.outcome not in ("error", "working")]
    counts = {name: sum(each.outcome == name for each in instances) for name in OUTCOMES}
    states = [f"{len(finished)} done", f"{counts['error']} failed"]
    states += [f"{counts['working']} at work"] * bool(counts["working"])
    found = [Figure("Instances", str(len(instances)), ", ".join(states))]
    ruled = [each for each in finished if VERDICT in each.after]
    if ruled:
        now = sum(bool(each.after[VERDICT]) for each in ruled)
        told, what = str(now), f"of {len(ruled)}"
        if all(VERDICT in each.before for each in ruled):  # else a count of other instances
            was = sum(bool(each.before[VERDICT]) for each in ruled)
            turned = {name: sum(each.change == name for each in ruled) for name in CHANGES}
            told = f"{was} \N{RIGHTWARDS ARROW} {told}"
            what += f"; {turned['fixed']} mended, {turned['broken']} broken"
        found.append(Figure("Solved by the rules", told, what))
        fooled = Figure(
            "Teacher yes, rules no", str(counts["fooled"]), "look at these first", "fooled"
        )
        found.append(fooled)
    elif counts["yes"] + counts["no"]:
        found.append(
            Figure("Teacher says yes", str(counts["yes"]), f"of {counts['yes'] + counts['no']}")
        )
    if scored := [each for each in finished if each.score is not None]:
        told, what = f"{_mean(each.score for each in scored):.2f}", "delivered"
        if all(each.base_score is not None for each in scored):  # else means of other instances
            was = _mean(each.base_score for each in scored)
            told, what = f"{was:.2f} \N{RIGHTWARDS ARROW} {told}", "base, then delivered"
        found.append(Figure(f"Mean {measure}", told, what))
    if updates := [each.updates for each in finished if each.steps]:
        told = f"{min(updates)} to {max(updates)}"
        found.append(Figure("Updates, median", f"{statistics.median(updates):g}", told))
    if (seconds := _mean(each.compute.get("seconds") for each in finished)) is not None:
        passes = _mean(_passes(each) for each in finished)
        told = "" if passes is None else f"{passes:.0f} passes of the reasoner"
        found.append(Figure("Seconds each", f"{seconds:.1f}", told))
    return found


def _passes(shown: Shown) -> float | None:
    counted = [shown.compute.get(name) for name in PASSES]
    return None if None in counted else sum(filter(None, counted))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def main_measure(instances: Iterable[Shown]) -> str | None:
    """The measure that is drawn: of the first instance that has one."""
    return next((each.main for each in instances if each.main is not None), None)


def run_context(run: Path, instances: Sequence[Shown]) -> dict[str, Any]:
    """What `run.html` needs."""
    measure = main_measure(instances)
    updates: list[Bar] = bins([each.updates for each in instances if each.steps])
    config = run / "config.yaml"
    return {
        "title": run.resolve().name,
        "instances": instances,
        "curves": {each.folder: curves(each) for each in instances},
        "sweeps": {each.folder: sweep_of(each.scales, BOX) for each in instances},
        "is_guarded": any(each.guarded is not None for each in instances),
        "guards": {
            each.folder: [] if each.guarded is None else lines_of(each.guarded.guard)
            for each in instances
        },
        "measure": measure,
        "figures": figures(instances, measure),
        "facets": facets(instances),
        "scatter": scatter(instances, measure),
        "updates": updates,
        "stops": tally(each.stop for each in instances if each.stop),
        "outcomes": OUTCOMES,
        "changes": CHANGES,
        "methods": sorted({each.method for each in instances} - {""}),
        "config": config.read_text("utf-8")[:LONGEST_CONFIG] if config.is_file() else "",
        "box": BOX,
        "prefix": "",
    }
