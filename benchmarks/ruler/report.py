"""Rows to RULER's tables: one set of them per judge and prompt, never mixed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.ruler.aggregate import COLUMNS, Scored, aggregates, by_group, scored
from benchmarks.ruler.export import Exported, IncompleteError
from benchmarks.ruler.items import Item
from benchmarks.ruler.judging import identity_of
from benchmarks.ruler.rows import Identity
from benchmarks.table import Row, markdown
from vlmteach.instances.ruler import CATEGORIES

TASKS, TASKS_WITHOUT_GAME = 40, 30
"""Of the whole benchmark."""

Rows = Mapping[Identity, Mapping[str, Any]]


def report(
    items: Iterable[Item], models: Sequence[Exported], rows: Rows, *, leave_out: bool
) -> list[dict[str, Any]]:
    """What each judge makes of each model.

    Only rows of the videos as they are now count. A video without a verdict is never a score: it
    is named, and left out where that is asked for.

    Args:
        items: the whole set.
        models: what was exported.
        rows: the judges' verdicts.
        leave_out: score what has a verdict, where some have none.

    Returns:
        One object per judge and prompt.

    Raises:
        IncompleteError: videos without a verdict, and `leave_out` is False.
        ValueError: no verdict at all.
    """
    items = [item.without_images() for item in items]
    judges = sorted({(i.judge, i.prompt) for i, row in rows.items() if row["status"] == "done"})
    sections, incomplete = [], []
    for judge, prompt in judges:
        results = [_result(items, model, rows, judge, prompt) for model in models]
        if not any(result["scored"] for result in results):
            continue  # of other videos
        incomplete += [
            f"{result['model']}, judge {judge}: {line}"
            for result in results
            for line in result["missing"]
        ]
        served = {
            row.get("served") for i, row in rows.items() if (i.judge, i.prompt) == (judge, prompt)
        }
        sections.append(
            {
                "judge": judge,
                "prompt": prompt,
                "served": sorted(name for name in served if name),
                "tasks": len({item.checklist.task for item in items}),
                "absent_categories": sorted(
                    set(CATEGORIES) - {item.checklist.category for item in items}
                ),
                "models": results,
            }
        )
    if not sections:
        raise ValueError(
            "--rows: got no verdict on any of these videos, expected some; "
            "`python -m benchmarks.ruler judge` makes them"
        )
    if incomplete and not leave_out:
        raise IncompleteError(
            "got videos without a verdict, expected none; missing:",
            incomplete,
            "judge again, which does what is missing, or score the others with --missing leave-out",
        )
    return sections


def _result(
    items: Sequence[Item], model: Exported, rows: Rows, judge: str, prompt: str
) -> dict[str, Any]:
    judged, missing = _judged(items, model, rows, judge, prompt)
    videos = list(judged.values())
    return {
        "model": model.model,
        "teacher": model.teacher,
        "expected": len(items),
        "scored": len(videos),
        "missing": missing,
        "aggregates": aggregates(videos),
        "categories": by_group(videos, "category"),
        "tasks": by_group(videos, "task"),
    }


def _judged(
    items: Sequence[Item], model: Exported, rows: Rows, judge: str, prompt: str
) -> tuple[dict[str, Scored], list[str]]:
    """Name of an item -> its video's scores; and what has none, a line each."""
    videos: dict[str, Scored] = {}
    missing = []
    for item in items:
        if item.name not in model.videos:
            missing.append(f"{item.name}.mp4: no video")
            continue
        row = rows.get(identity_of(model, item, judge, prompt))
        if row is None:
            missing.append(f"{item.name}.mp4: not judged")
        elif row["status"] == "error":
            missing.append(f"{item.name}.mp4: {str(row.get('error'))[:200]!r}")
        else:
            checklist = item.checklist
            videos[item.name] = scored(checklist.task, checklist.category, row["labels"])
    return videos, missing


def table(
    items: Sequence[Item],
    models: Sequence[Exported],
    rows: Rows,
    sections: Sequence[Mapping[str, Any]],
) -> list[Row]:
    """One row per judged video, as `benchmarks.table` reads them.

    Args:
        items: the whole set.
        models: what was exported.
        rows: the judges' verdicts.
        sections: as `report` gives them. Where there is more than one, the judge and the prompt
            stand in the setting's name: no table mixes them.

    Returns:
        Rows whose measures are `COLUMNS`, 0..100; null in a metric that the category does not have.
    """
    told = []
    for section in sections:
        judge, prompt = section["judge"], section["prompt"]
        suffix = f", judge {judge}, prompt {prompt}" if len(sections) > 1 else ""
        for model in models:
            for name, video in _judged(items, model, rows, judge, prompt)[0].items():
                measured = zip(COLUMNS, video.values, strict=True)
                told.append(
                    {
                        "setting": model.model + suffix,
                        "key": name,
                        **model.costs.get(name, {"seed": 0}),
                        "category": video.category,
                        "judge": judge,
                        **{c: None if math.isnan(value) else value for c, value in measured},
                    }
                )
    return told


def render(sections: Sequence[Mapping[str, Any]]) -> str:
    """The report as Markdown."""
    return "\n".join(part for section in sections for part in _section(section))


def _section(section: Mapping[str, Any]) -> list[str]:
    judge = _plain(section["judge"])
    named = f"judge: {judge}"
    lines = [
        f"# RULER-Bench, {named}\n",
        "Good / Medium / Poor = 2 / 1 / 0, in percent; [95 % bootstrap interval over videos]; n "
        "videos with a verdict. Official: the mean over categories per metric, then over the four "
        f"metrics. Prompt {section['prompt']}.",
    ]
    if section["served"]:
        lines.append(f"The judge called itself {', '.join(map(_plain, section['served']))}.")
    if section["tasks"] < TASKS:
        lines.append(
            f"The set has {section['tasks']} of the benchmark's {TASKS} tasks "
            f"({TASKS_WITHOUT_GAME} without game)."
        )
    if section["absent_categories"]:
        lines.append(
            f"No instance of: {', '.join(section['absent_categories'])}. The official aggregate "
            "over all categories is undefined without them."
        )
    for result in section["models"]:
        if result["missing"]:
            lines.append(
                f"**{result['model']}: {len(result['missing'])} of {result['expected']} videos "
                "have no verdict and are left out: its rows are not of the whole set.**"
            )
    parts = ["\n".join(lines) + "\n"]
    for name in section["models"][0]["aggregates"]:
        rows = [_line(result["model"], result["aggregates"][name]) for result in section["models"]]
        parts.append(f"## {name.capitalize()} ({named})\n\n{markdown(rows, COLUMNS)}")
    for result in section["models"]:
        rows = [_line(name, cells) for name, cells in result["categories"].items()]
        title = f"## {result['model']} by category ({named})"
        parts.append(f"{title}\n\n{markdown(rows, COLUMNS)}")
    for result in section["models"]:
        if result["missing"]:
            listed = "\n".join(f"- {_plain(line)}" for line in result["missing"])
            parts.append(f"## {result['model']}: without a verdict ({named})\n\n{listed}\n")
    return parts


def _line(name: str, cells: Mapping[str, Any]) -> dict[str, Any]:
    n = max((cell["n"] for cell in cells.values()), default=0)
    return {"setting": name, "n": n, **cells}


def _plain(text: str) -> str:
    """A stranger's text inside Markdown: one line, and no table or markup of its own."""
    return "".join(c if c.isprintable() and c not in "|<>`*" else " " for c in text)
