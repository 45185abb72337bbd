"""Plots of rows as PNG files, drawn with matplotlib on no display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.table.rows import Row, by_setting, categories_of
from benchmarks.table.statistics import r_squared, teachers
from vlmteach.report.statistics import mean_interval, per_instance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 144
MARKERS = "osD^vP*Xd<>ph8"
GRID = {"alpha": 0.3, "linewidth": 0.6}
PASSES = "reasoner_passes"


def write_plots(rows: Sequence[Row], measure: str, out: Path) -> list[Path]:
    """Draws every plot that the rows can fill: score against compute, steps against score, bars by
    category, teachers against results.

    Args:
        rows: as `read_rows` gives them.
        measure: the measure on every score axis.
        out: an existing folder.

    Returns:
        The files written: `compute.png`, `steps.png`, `categories.png`, `teachers.png`.
    """
    rows = [_with_passes(row) for row in rows if row.get(measure) is not None]
    plots: dict[str, Callable[[Sequence[Row], str], Figure | None]] = {
        "compute": compute,
        "steps": steps,
        "categories": categories,
        "teachers": capability,
    }
    written = []
    for name, draw in plots.items():
        path = out / f"{name}.png"
        path.unlink(missing_ok=True)  # a plot of earlier rows would not belong to this table
        if (figure := draw(rows, measure)) is not None:
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
            written.append(path)
    return written


def _with_passes(row: Row) -> Row:
    """With forward and backward passes added up, where both are known."""
    passes = [row.get(name) for name in ("reasoner_forwards", "reasoner_backwards")]
    return row if None in passes else {**row, PASSES: sum(map(float, filter(None, passes)))}


def figure_of(
    width: float, height: float, panels: int = 1, **told: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of its own, in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, **told)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(**GRID)
        axis.set_axisbelow(True)
    return figure, list(axes)


def _colour(number: int, count: int) -> Any:
    """The colour of one of `count` settings; beyond twenty, markers alone tell them apart."""
    from matplotlib import colormaps

    return colormaps["tab10"](number) if count <= 10 else colormaps["tab20"](number % 20)


def points(axis: Axes, rows: Sequence[Row], across: str, up: str) -> None:
    """One point per setting that has both, with both intervals."""
    settings = by_setting(rows)
    for number, (setting, mine) in enumerate(settings.items()):
        if values := per_instance(mine, across):
            x, y = mean_interval(values), mean_interval(per_instance(mine, up))
            colour = _colour(number, len(settings))
            _point(axis, number, colour, x, y, f"{setting} (n = {y['n']})")


def _point(
    axis: Axes,
    number: int,
    colour: Any,
    x: dict[str, float],
    y: dict[str, float],
    label: str,
) -> None:
    """A marker with its intervals, which are fainter: settings may share an abscissa."""
    across, up = _around(x), _around(y)
    line = {"elinewidth": 1, "capsize": 2, "alpha": 0.5, "zorder": 2}
    axis.errorbar(x["mean"], y["mean"], xerr=across, yerr=up, fmt="none", ecolor=colour, **line)
    marker = MARKERS[number % len(MARKERS)]
    axis.plot(x["mean"], y["mean"], marker, color=colour, markersize=6, label=label, zorder=3)


def _around(cell: dict[str, float]) -> list[list[float]]:
    """An interval as matplotlib takes it: lengths below and above the mean, never negative."""
    return [
        [max(cell["mean"] - cell["low"], 0.0)],
        [max(cell["high"] - cell["mean"], 0.0)],
    ]


def legend(figure: Figure, axis: Axes) -> None:
    """What the markers of a panel mean, beside all panels."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def compute(rows: Sequence[Row], measure: str) -> Figure | None:
    """Score against reasoner passes and against seconds, per clip."""
    panels = [
        (name, label)
        for name, label in (
            (PASSES, "reasoner passes per clip, forward + backward"),
            ("seconds", "seconds per clip"),
        )
        if any(row.get(name) is not None for row in rows)
    ]
    if not panels:
        return None
    figure, axes = figure_of(4.2 * len(panels) + 2.8, 4.0, len(panels), sharey=True)
    for axis, (name, label) in zip(axes, panels, strict=True):
        points(axis, rows, name, measure)
        axis.set_xlabel(label)
        _widen(axis, [float(row[name]) for row in rows if row.get(name) is not None])
    axes[0].set_ylabel(f"{measure}, mean and 95 % interval")
    legend(figure, axes[0])
    return figure


def _widen(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where values span more than a decade; with plain numbers on it."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) > 0 and max(values) / min(values) > 10:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())


def steps(rows: Sequence[Row], measure: str) -> Figure | None:
    """Score against updates made; a line joins settings whose clips all took the same number."""
    if len({row.get("steps") for row in rows} - {None}) < 2:
        return None
    figure, (axis,) = figure_of(7.6, 4.0)
    points(axis, rows, "steps", measure)
    fixed = []
    for mine in by_setting(rows).values():
        made = {float(row.get("steps") or 0) for row in mine}
        if len(made) == 1 and (updates := made.pop()) > 0:
            fixed.append((updates, mean_interval(per_instance(mine, measure))["mean"]))
    if len({updates for updates, _ in fixed}) == len(fixed) > 1:
        axis.plot(*zip(*sorted(fixed), strict=True), color="0.6", linewidth=1, zorder=0)
    axis.set_xlabel("updates per clip")
    axis.set_ylabel(f"{measure}, mean and 95 % interval")
    axis.set_xlim(left=min(-0.5, axis.get_xlim()[0]))
    legend(figure, axis)
    return figure


def categories(rows: Sequence[Row], measure: str) -> Figure | None:
    """Bars of every setting, one panel per category."""
    names = categories_of(rows)
    if not names:
        return None
    settings = by_setting(rows)
    tall = 1.2 + 0.3 * len(settings)
    wide = 0.09 * max(map(len, settings)) + 1.9 * len(names)
    figure, axes = figure_of(max(wide, 5.0), max(tall, 2.4), len(names), sharey=True, sharex=True)
    for axis, name in zip(axes, names, strict=True):
        counts = set()
        for number, mine in enumerate(settings.values()):
            chosen = [row for row in mine if row.get("category") == name]
            if not (values := per_instance(chosen, measure)):
                continue
            cell = mean_interval(values)
            counts.add(cell["n"])
            axis.barh(
                number,
                cell["mean"],
                xerr=_around(cell),
                color=_colour(number, len(settings)),
                height=0.7,
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "0.25"},
            )
        n = " to ".join(f"{count}" for count in sorted({min(counts), max(counts)}))
        axis.set_title(f"{name}\nn = {n}", fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.locator_params(axis="x", nbins=3)  # so that neighbours' labels stay apart
    axes[0].set_yticks(range(len(settings)), labels=list(settings), fontsize=8)
    axes[0].invert_yaxis()
    figure.supxlabel(f"{measure}, mean and 95 % interval", fontsize=9)
    return figure


def capability(rows: Sequence[Row], measure: str) -> Figure | None:
    """Results against how well each setting's teacher judges base clips, with R squared."""
    found = teachers(rows, measure)
    if not found:
        return None
    figure, (axis,) = figure_of(7.6, 4.0)
    for number, teacher in enumerate(found):
        x = {"mean": teacher.auroc, "low": teacher.auroc, "high": teacher.auroc}
        label = f"{teacher.setting} (n = {teacher.n})"
        _point(axis, number, _colour(number, len(found)), x, teacher.result, label)
    across, up = [t.auroc for t in found], [t.result["mean"] for t in found]
    try:
        intercept, slope, explained = r_squared(across, up)
    except ValueError:  # too few teachers for a line to mean anything
        title = f"{len(found)} teacher{'s' * (len(found) > 1)}: too few for R²"
    else:
        ends = [min(across), max(across)]
        axis.plot(ends, [intercept + slope * x for x in ends], color="0.5", linewidth=1, zorder=0)
        title = f"R² = {explained:.3f}, {len(found)} teachers"
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("teacher on base clips: AUROC of P(yes) against the judge")
    axis.set_ylabel(f"{measure}, mean and 95 % interval")
    legend(figure, axis)
    return figure
