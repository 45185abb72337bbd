"""A run's folder -> what its page shows: one `Shown` per instance, whatever state it is in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmteach.guard import Guarded, read_guard
from vlmteach.ledger import DONE, ERROR
from vlmteach.record import read_object
from vlmteach.rows import (
    BASE,
    CLIP,
    COSTS,
    FIRST,
    GUARD,
    IDENTITY,
    INSTANCE,
    LOSSES,
    PREDICTION_INDEX,
    PREDICTIONS,
    read_row,
    read_scores,
)
from vlmteach.scales import Scales, read_scales

YES = 0.5
"""P("Yes") above which somebody is taken to say yes."""
VERDICT, MAIN = "strict", "overall"
"""The measures that decide and that are drawn, where a score has them."""
VIEWS = ("p_yes", "false_yes", "judge_p_yes", "judge_yes", "judge_false_yes")
"""What teacher and judge say of a clip, beside the measures."""
SCALES_FOLDER = "scales"
"""In an instance's folder: where `vlmteach apply --scales` left its clips, if it was told to."""
_LARGEST = 10**9
_NO_MEASURES = {*IDENTITY, *COSTS, *LOSSES, *VIEWS}

OUTCOMES = {
    "fooled": "teacher yes, rules no",
    "solved": "solved",
    "unseen": "rules yes, teacher no",
    "unsolved": "not solved",
    "yes": "teacher yes",
    "no": "teacher no",
    "done": "done",
    "error": "error",
    "working": "at work",
}
"""Outcome -> its words, in the order in which filters list them."""
CHANGES = {"fixed": "mended", "broken": "broken", "kept": "right before", "same": "still wrong"}
"""What became of the base clip's verdict -> its words."""
WARNINGS = {"warned": "warned", "quiet": "not warned"}
"""What the guard says -> its words."""


@dataclass(frozen=True)
class Asked:
    """A query and what the teacher said to it."""

    role: str
    text: str
    p_yes: tuple[float, ...] = ()
    """Of each reading, 0..1; empty where there are none."""


@dataclass(frozen=True)
class Shown:
    """One instance as a page shows it. Texts are a stranger's, numbers are finite."""

    key: str
    folder: str
    """Name below the run's."""
    outcome: str
    """One of `OUTCOMES`."""
    prompt: str = ""
    task: str = ""
    category: str = ""
    method: str = ""
    stop: str = ""
    queries: tuple[Asked, ...] = ()
    query_source: str = ""
    steps: tuple[int, ...] = ()
    """Of each reading: updates made before."""
    losses: tuple[float | None, ...] = ()
    """Of each reading; None where it was no number."""
    updates: int = 0
    kept_step: int | None = None
    first_loss: float | None = None
    kept_loss: float | None = None
    compute: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time per stage."""
    before: dict[str, float | bool] = field(default_factory=dict)
    """Measures of the base clip."""
    after: dict[str, float | bool] = field(default_factory=dict)
    """Measures of the delivered clip."""
    views: dict[str, float | bool] = field(default_factory=dict)
    """`VIEWS` of the delivered clip."""
    base_views: dict[str, float | bool] = field(default_factory=dict)
    """Those of the base clip."""
    guarded: Guarded | None = None
    """How the clip looks beside its base."""
    scales: Scales | None = None
    """The adapter at several scales."""
    judge: str = ""
    has_base: bool = False
    has_clip: bool = False
    has_first: bool = False
    height: int = 0
    """Of the clip, pixels; 0: not told."""
    width: int = 0
    predictions: dict[str, Any] = field(default_factory=dict)
    """`predictions.json`; empty without a picture."""
    error: str = ""
    remedy: str = ""
    """The part of an error behind its last semicolon: what to do."""
    traceback: str = ""

    @property
    def main(self) -> str | None:
        """The measure that is drawn: `overall`, or the first."""
        return MAIN if MAIN in self.after else next(iter(self.after), None)

    @property
    def score(self) -> float | None:
        """The delivered clip's measure that is drawn."""
        return None if self.main is None else float(self.after[self.main])

    @property
    def base_score(self) -> float | None:
        """The same of the base clip."""
        found = self.before.get(self.main or "")
        return None if found is None else float(found)

    @property
    def gain(self) -> float | None:
        """Score minus the base's; without scores, what the loss fell by."""
        pair = (self.score, self.base_score)
        if self.score is None:
            pair = (self.first_loss, self.kept_loss)
        return None if None in pair else pair[0] - pair[1]  # type: ignore[operator]

    @property
    def warning(self) -> tuple[str, ...]:
        """The guard's measures that fell while the teacher rose."""
        return self.guarded.warning if self.guarded is not None else ()

    @property
    def watched(self) -> str:
        """What the guard says, one of `WARNINGS`; empty where it says nothing."""
        return "" if self.guarded is None else "warned" if self.warning else "quiet"

    @property
    def change(self) -> str:
        """What became of the base clip's verdict, one of `CHANGES`; empty where it has none."""
        if VERDICT not in self.before or VERDICT not in self.after:
            return ""
        was, is_now = self.before[VERDICT], self.after[VERDICT]
        return ("kept" if is_now else "broken") if was else ("fixed" if is_now else "same")


def read_run(run: Path) -> list[Shown]:
    """The instances of a run, sorted by key: finished ones, failed ones, those at work.

    A file that is missing or broken leaves its part of the page out, never the page.
    """
    return sorted(_found(run), key=lambda shown: shown.key)


def _found(run: Path) -> Iterator[Shown]:
    for folder in sorted(run.iterdir()):
        if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
            continue
        names = {path.name for path in folder.iterdir()}
        if DONE in names and (row := read_row(folder / DONE)) is not None:
            yield _finished(folder, names, row)
        elif ERROR in names and (row := read_row(folder / ERROR)) is not None:
            yield _failed(folder, names, row)
        elif INSTANCE in names:
            asked = read_object(folder / INSTANCE) or {}
            yield Shown(
                key=_text(asked.get("key")) or folder.name,
                folder=folder.name,
                outcome="working",
                **_task(asked, {}),
                **_files(names),
                queries=_queries(folder),
            )


def _finished(folder: Path, names: set[str], row: Mapping[str, Any]) -> Shown:
    record = read_object(folder / "fit.json") if "fit.json" in names else None
    record = record or {}
    asked = read_object(folder / INSTANCE) if INSTANCE in names else None
    measures = _scores(folder)
    before, after, views, base_views = _measures(measures)
    readings = [each for each in _list(record.get("readings")) if isinstance(each, dict)]
    queries = _asked(record, readings) or _queries(folder)
    clip: Any = record.get("clip")
    clip = clip if isinstance(clip, dict) else {}
    kept_step = row.get("kept_step") if isinstance(row.get("kept_step"), int) else None
    steps = tuple(_whole(each.get("step")) for each in readings)
    return Shown(
        key=row["key"],
        folder=folder.name,
        outcome=_outcome(after, views, queries, steps, kept_step),
        **_task(asked or {}, measures),
        **_files(names),
        method=_text(row.get("method")),
        stop=_text(row.get("stop_reason")),
        queries=queries,
        query_source=_text(row.get("query_source")),
        steps=steps,
        losses=tuple(_number(each.get("loss")) for each in readings),
        updates=_whole(row.get("steps")),
        kept_step=kept_step,
        first_loss=_number(row.get("first_loss")),
        kept_loss=_number(row.get("kept_loss")),
        compute=_numbers(row.get("compute")),
        seconds=_numbers(record.get("seconds")),
        before=before,
        after=after,
        views=views,
        base_views=base_views,
        guarded=read_guard(folder) if GUARD in names else None,
        scales=read_scales(folder / SCALES_FOLDER) if SCALES_FOLDER in names else None,
        judge=_text(measures.get("judge")),
        height=_whole(clip.get("height")),
        width=_whole(clip.get("width")),
        predictions=_predictions(folder) if PREDICTIONS in names else {},
    )


def _failed(folder: Path, names: set[str], row: Mapping[str, Any]) -> Shown:
    asked = read_object(folder / INSTANCE) if INSTANCE in names else None
    error, _, remedy = row["error"].rpartition("; ")
    return Shown(
        key=row["key"],
        folder=folder.name,
        outcome="error",
        **_task(asked or {}, {}),
        **_files(names),
        queries=_queries(folder) if "queries.json" in names else (),
        stop=_text(row.get("kind")),
        error=error or remedy,
        remedy=remedy if error else "",
        traceback=_text(row.get("traceback")),
    )


def _outcome(
    after: Mapping[str, Any],
    views: Mapping[str, Any],
    queries: tuple[Asked, ...],
    steps: tuple[int, ...],
    kept_step: int | None,
) -> str:
    """What teacher and rules say of the delivered clip. The teacher's word is that on the clip
    where it was asked, else that on the prediction of the kept weights."""
    told = views.get("p_yes")
    if told is None and kept_step in steps:
        at = steps.index(kept_step)
        told = min((query.p_yes[at] for query in queries if len(query.p_yes) > at), default=None)
    teacher = None if told is None else told > YES
    rules = after.get(VERDICT)
    if rules is None:
        return "done" if teacher is None else "yes" if teacher else "no"
    if rules:
        return "unseen" if teacher is False else "solved"
    return "fooled" if teacher else "unsolved"


def _scores(folder: Path) -> dict[str, Any]:
    try:
        return next(iter(read_scores(folder)), {})
    except (ValueError, OSError):
        return {}


def _measures(scores: Mapping[str, Any]) -> tuple[dict, dict, dict, dict]:
    """(of the base clip, of the clip, views of the clip, views of the base clip)."""
    found = {
        name: value
        for name, value in scores.items()
        if isinstance(value, bool) or _number(value) is not None
    }
    views = {name: found[name] for name in VIEWS if name in found}
    base_views = {name: found[f"base_{name}"] for name in VIEWS if f"base_{name}" in found}
    after = {n: v for n, v in found.items() if n not in _NO_MEASURES and not n.startswith("base_")}
    before = {name: found[f"base_{name}"] for name in after if f"base_{name}" in found}
    return before, after, views, base_views


def _asked(record: Mapping[str, Any], readings: list[dict]) -> tuple[Asked, ...]:
    """The queries of a fit with what was said to each; a hole in a curve is drawn as none."""
    queries = record.get("queries")
    listed = _list(queries.get("queries")) if isinstance(queries, dict) else []
    listed = [query for query in listed if isinstance(query, dict)]
    said = [[_number(p) for p in _list(each.get("p_yes"))] for each in readings]
    whole = bool(said) and all(len(p) == len(listed) and None not in p for p in said)
    curves = list(zip(*said, strict=True)) if whole else [()] * len(listed)
    return tuple(
        Asked(_text(query.get("role")), _text(query.get("text")), curve)  # type: ignore[arg-type]
        for query, curve in zip(listed, curves, strict=True)
    )


def _queries(folder: Path) -> tuple[Asked, ...]:
    told = read_object(folder / "queries.json") or {}
    goal, process = told.get("goal"), _list(told.get("process"))
    asked = [("goal", goal), *(("process", text) for text in process)]
    return tuple(Asked(role, text) for role, text in asked if isinstance(text, str))


def _predictions(folder: Path) -> dict[str, Any]:
    told = read_object(folder / PREDICTION_INDEX) or {}
    sizes = [told.get("height"), told.get("width")]
    lists = [_list(told.get(name)) for name in ("steps", "frames")]
    fits = all(isinstance(n, int) and 0 < n <= 4096 for n in sizes)
    fits = fits and all(lists) and all(isinstance(n, int) for each in lists for n in each)
    return told if fits else {}


def _task(asked: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt, task and category: the sample's own, else a score's."""
    return {
        "prompt": _text(asked.get("prompt")),
        "task": _text(asked.get("task") or scores.get("family")),
        "category": _text(asked.get("category") or scores.get("category")),
    }


def _files(names: set[str]) -> dict[str, Any]:
    return {
        "has_base": BASE in names,
        "has_clip": CLIP in names,
        "has_first": FIRST in names,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int:
    """A count; 0 for what is none, or none that a fit could reach."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if fits else 0  # type: ignore[return-value]


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON may hold whole numbers of any length
        return None


def _numbers(value: object) -> dict[str, float]:
    given = value if isinstance(value, dict) else {}
    return {str(k): n for k, v in given.items() if (n := _number(v)) is not None}
