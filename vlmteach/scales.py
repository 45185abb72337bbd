"""An adapter at several scales: what teacher and judge say of each clip, and how it looks.

Where the teacher's P(yes) goes on rising while the judge's falls, or the guard does, the adapter
serves the teacher and no longer the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach.guard import DRIFTS, LOOKS, Guard, fallen, guard_from_json, guard_of
from vlmteach.record import read_object
from vlmteach.rows import SCALES

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = "-"
"""Where there is no number."""
MOST = 64
"""Scales that are read from a file."""

Asked = Callable[["Tensor", float], tuple[float, ...]]
"""A clip, uint8 [T, H, W, 3], and its frames per second -> P(yes) of each query."""


@dataclass(frozen=True)
class AtScale:
    """A clip at one scale of the adapter."""

    scale: float
    p_yes: tuple[float, ...]
    """The teacher's, of each query of the fit, 0..1; empty where it was not asked."""
    judge_p_yes: tuple[float, ...]
    """The judge's."""
    guard: Guard | None
    """Beside the clip of scale 0; None where there is none."""


@dataclass(frozen=True)
class Scales:
    """What `scales.json` says."""

    judge: str | None
    """Its checkpoint."""
    scales: tuple[AtScale, ...]
    """Ascending."""


def at_scales(
    clips: Mapping[float, tuple[Tensor, float]],
    asked: Sequence[Asked],
    judge: str | None,
) -> Scales:
    """Looks at an instance's clips.

    Args:
        clips: scale -> (the clip as delivered, uint8 [T, H, W, 3]; frames per second).
        asked: the teacher, and after it the judge where there is one; none: nobody is asked.
        judge: the judge's checkpoint.
    """
    base = clips.get(0.0)
    found = []
    for scale, (clip, fps) in sorted(clips.items()):
        teacher, of_judge = (*(ask(clip, fps) for ask in asked), (), ())[:2]
        guard = None if base is None else guard_of(*map(_channels_first, (base[0], clip)))
        found.append(AtScale(scale, teacher, of_judge, guard))
    return Scales(judge, tuple(found))


def _channels_first(clip: Tensor) -> Tensor:
    """[T, H, W, 3] -> [T, 3, H, W]."""
    return clip.permute(0, 3, 1, 2)


def table_of(scales: Scales) -> str:
    """As a table of text: the least P(yes) of any query, and against scale 0 the looks' ratios and
    the drifts; what is beyond its limit stands last."""
    head = ["scale", "teacher", "judge", *LOOKS, *DRIFTS, "fell"]
    lines = [head]
    for each in scales.scales:
        views = [f"{min(p):.3f}" if p else NOTHING for p in (each.p_yes, each.judge_p_yes)]
        guard = each.guard
        numbers = [NOTHING] * (len(LOOKS) + len(DRIFTS))
        if guard is not None:
            numbers = [f"{guard.ratio(name):.2f}" for name in LOOKS]
            numbers += [f"{guard.change(name):.3f}" for name in DRIFTS]
        fell = ", ".join(fallen(guard)) if guard is not None else ""
        lines.append([f"{each.scale:g}", *views, *numbers, fell])
    widths = [max(len(line[n]) for line in lines) for n in range(len(head) - 1)]
    return "\n".join(
        "  ".join(
            [*(word.rjust(width) for word, width in zip(line, widths, strict=False)), line[-1]]
        ).rstrip()
        for line in lines
    )


def read_scales(folder: Path) -> Scales | None:
    """What the `scales.json` of a folder says; None where it has none, or one that is broken."""
    told = read_object(folder / SCALES) or {}
    listed = told.get("scales")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST:
        return None
    judge = told.get("judge")
    found = [_at_scale(each) for each in listed]
    whole = [each for each in found if each is not None]
    if len(whole) < len(found) or len({each.scale for each in whole}) < len(whole):
        return None
    whole.sort(key=lambda each: each.scale)
    return Scales(judge if isinstance(judge, str) else None, tuple(whole))


def _at_scale(told: object) -> AtScale | None:
    if not isinstance(told, dict):
        return None
    scale, views = told.get("scale"), [told.get(name) for name in ("p_yes", "judge_p_yes")]
    if not _within(scale, 1e6) or not all(
        isinstance(view, list) and all(_within(p, 1) and p >= 0 for p in view) for view in views
    ):
        return None
    teacher, judge = (tuple(map(float, view)) for view in views)  # type: ignore[arg-type]
    return AtScale(float(scale), teacher, judge, guard_from_json(told.get("guard")))  # type: ignore[arg-type]


def _within(value: object, most: float) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and abs(value) <= most and math.isfinite(value)  # type: ignore[arg-type]
