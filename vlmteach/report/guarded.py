"""What the guard says of an instance, and its adapter at several scales -> lines and a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmteach.guard import DRIFTS, LIMITS, LOOKS, MEASURES, Guard, fallen
from vlmteach.report.charts import Axis, polyline
from vlmteach.scales import Scales

DECIMALS = dict(zip(MEASURES, (3, 2, 4, 4, 3, 3), strict=True))
"""Of a measure as it is shown."""


@dataclass(frozen=True)
class Line:
    """One measure of a clip beside its base."""

    name: str
    decimals: int
    base: float | None
    """None of a drift, which is the clip's from the base."""
    clip: float
    ratio: float | None
    """1: as the base."""
    limit: str
    """What it may be; empty without a limit."""
    is_beyond: bool


def lines_of(guard: Guard) -> list[Line]:
    """The table of a clip."""
    fell = fallen(guard)
    return [
        *(
            Line(
                name,
                DECIMALS[name],
                getattr(guard.base, name),
                getattr(guard.clip, name),
                guard.ratio(name),
                _span(name),
                name in fell,
            )
            for name in LOOKS
        ),
        *(
            Line(name, DECIMALS[name], None, guard.change(name), None, _span(name), name in fell)
            for name in DRIFTS
        ),
    ]


def _span(name: str) -> str:
    """A limit in words: the ratios, or the drifts, that are within it."""
    limit = LIMITS.get(name)
    if limit is None:
        return ""
    if name in DRIFTS:
        return f"to {limit:.3f}"
    return f"{2**-limit:.2f}\N{EN DASH}{2**limit:.2f}"


@dataclass(frozen=True)
class Cell:
    """A measure at one scale of an adapter."""

    value: float | None
    decimals: int
    is_beyond: bool


@dataclass(frozen=True)
class Sweep:
    """An adapter's scales, in pixels and as rows."""

    teacher: tuple[str, ...]
    """`points` of the pieces of its curve of the least P(yes)."""
    judge: tuple[str, ...]
    across: list[tuple[float, str]]
    """Ticks: the scales."""
    up: list[tuple[float, str]]
    fell: list[tuple[float, str]]
    """(place, words) of each scale at which the guard is beyond a limit."""
    head: tuple[str, ...]
    rows: list[tuple[str, list[Cell]]]
    """(scale, a cell for each of `head`)."""
    judge_name: str


def sweep_of(scales: Scales | None, box: Mapping[str, int]) -> Sweep | None:
    """The drawing and the rows; None of fewer than two scales.

    Args:
        scales: ascending.
        box: pixels of the plot, `left right top bottom`.
    """
    if scales is None or len(scales.scales) < 2:
        return None
    given = scales.scales
    across = Axis(given[0].scale, given[-1].scale, box["left"], box["right"])
    up = Axis(0, 1, box["bottom"], box["top"])
    places = [each.scale for each in given]
    teacher = [min(each.p_yes, default=None) for each in given]
    judge = [min(each.judge_p_yes, default=None) for each in given]
    fell = [() if each.guard is None else fallen(each.guard) for each in given]
    return Sweep(
        teacher=polyline(across, up, places, teacher),
        judge=polyline(across, up, places, judge),
        across=[(across(place), f"{place:g}") for place in places],
        up=up.ticks(2),
        fell=[
            (across(at), ", ".join(names)) for at, names in zip(places, fell, strict=True) if names
        ],
        head=("teacher", "judge", *MEASURES),
        rows=[
            (f"{each.scale:g}", [Cell(p, 2, False), Cell(j, 2, False), *_cells(each.guard, names)])
            for each, p, j, names in zip(given, teacher, judge, fell, strict=True)
        ],
        judge_name=scales.judge or "",
    )


def _cells(guard: Guard | None, fell: tuple[str, ...]) -> list[Cell]:
    """Ratios of the looks, and the drifts."""
    return [
        Cell(
            None if guard is None else guard.ratio(name) if name in LOOKS else guard.change(name),
            2 if name in LOOKS else DECIMALS[name],
            name in fell,
        )
        for name in MEASURES
    ]
