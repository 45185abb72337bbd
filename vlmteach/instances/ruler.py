"""RULER-Bench: `data.jsonl` and the images beside it, and the checklist a row is judged by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach.instances.rows import Row, json_or_parquet_rows
from vlmteach.instances.sample import InstanceError, shown
from vlmteach.instances.write import NewSample

NAME = "data.jsonl"
METRICS = ("Instruction Following", "Visual Consistency", "Visual Fidelity", "Rule Coherence")
CATEGORIES = ("science", "game", "semantic", "hypothetical", "humanity", "vision rule")
MAX_QUESTIONS = 100
_FILE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,78}[A-Za-z0-9_-])?")


@dataclass(frozen=True, slots=True)
class Checklist:
    """What a row is judged by, and where its video belongs."""

    task: str
    """`task_name`, fit to be a folder's name."""
    index: str
    """Fit to be a file's name."""
    category: str
    """One of `CATEGORIES`."""
    questions: tuple[tuple[str, str], ...]
    """(metric, question), one or more, in the order asked; the metric is one of `METRICS`."""
    explanation: str
    """What the authors expected to see; empty where they wrote nothing."""


def read_checklist(meta: Mapping[str, Any], key: str, source: str = "") -> Checklist:
    """A row's checklist, every field checked: it may be a stranger's.

    Raises:
        InstanceError: names the field at fault.
    """

    def refusal(field: str, got: object, expected: str, remedy: str) -> InstanceError:
        return InstanceError(
            key=key, source=source, field=field, got=shown(got), expected=expected, remedy=remedy
        )

    names = {}
    for field in ("task_name", "index"):
        value = meta.get(field)
        text = str(value) if type(value) in (str, int) else ""
        if not _FILE_NAME.fullmatch(text):
            raise refusal(field, value, "a plain file name of at most 80 characters", "rename it")
        names[field] = text
    if meta.get("category") not in CATEGORIES:
        raise refusal("category", meta.get("category"), f"one of {CATEGORIES}", "correct it")
    given = meta.get("checklist")
    form = f"a list of 1 to {MAX_QUESTIONS} objects {{metric: question}}"
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_QUESTIONS:
        raise refusal("checklist", given, form, "repair it")
    questions = []
    for entry in given:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise refusal("checklist", entry, form, "repair it")
        ((metric, question),) = entry.items()
        if metric not in METRICS:
            raise refusal("checklist", metric, f"one of {METRICS}", "correct the metric")
        if not _is_text(question) or not question.strip():
            raise refusal("checklist", question, "a question", "write one")
        questions.append((metric, question.strip()))
    explanation = meta.get("implicit_explanation") or ""
    if not _is_text(explanation):
        raise refusal("implicit_explanation", explanation, "text", "correct it")
    return Checklist(
        names["task_name"], names["index"], meta["category"], tuple(questions), explanation.strip()
    )


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()  # JSON can spell half a surrogate pair, which no file can hold
    except UnicodeEncodeError:
        return False
    return True


def import_ruler(source: Path) -> Iterator[NewSample | InstanceError]:
    """The rows of `data.jsonl`, of a folder that holds it, or of the hub's Parquet file, keyed
    `<task_name>/<index>`.

    A row without `input_image_path` is text-to-video. The ground-truth image becomes the held-out
    final frame, as PNG, and the whole row, with its checklist, the held-out metadata. A row that
    could not be judged is refused, and one with an input video: no reasoner takes one.
    """
    table = source / NAME if source.is_dir() else source
    for row in json_or_parquet_rows(table):
        try:
            yield row if isinstance(row, InstanceError) else _sample(row, table.parent)
        except InstanceError as error:
            yield error


def is_ruler(table: Path) -> bool:
    """Whether a JSON-lines or Parquet file is RULER's: its first row names a task and a checklist.

    Raises:
        ValueError: a Parquet file, without pyarrow.
    """
    first = next(iter(json_or_parquet_rows(table)), None)
    return isinstance(first, Row) and {"task_name", "index", "checklist"} <= first.cells.keys()


def _sample(row: Row, root: Path) -> NewSample:
    cells = row.cells
    for name in ("task_name", "index"):
        if cells.get(name) in (None, ""):
            raise row.refusal(name, "nothing", "a value", "complete the row")
    row.key = f"{cells['task_name']}/{cells['index']}"
    if cells.get("input_video_path"):
        raise row.refusal(
            "input_video_path",
            shown(cells["input_video_path"]),
            "no input video: a clip starts from an image or from text",
            "leave the row out",
        )
    meta = {name: value for name, value in cells.items() if not _embeds(value)}
    if isinstance(meta.get("checklist"), str):  # the hub's parquet keeps it as a JSON string
        try:
            meta["checklist"] = json.loads(meta["checklist"])
        except (ValueError, RecursionError) as error:
            raise row.refusal("checklist", str(error), "a JSON list", "repair it") from error
    read_checklist(meta, row.key, row.source)
    members = {
        "prompt.txt": row.prompt(),
        "meta.json": json.dumps(meta, sort_keys=True).encode(),
    }
    first = row.image("input_image_path", "first.png", root)
    if first is not None:
        members["first.png"] = first
    final = row.image("gt_image_path", "final.png", root)
    if final is not None:
        members["final.png"] = final
    return NewSample(
        row.key,
        row.source,
        members,
        task=str(cells["task_name"]),
        category=cells.get("category") or None,
    )


def _embeds(value: Any) -> bool:
    """Whether a cell holds a file's bytes."""
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)
