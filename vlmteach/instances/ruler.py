"""RULER-Bench: `data.jsonl` and the images beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from vlmteach.instances.decode import decode_image
from vlmteach.instances.rows import Row, json_rows
from vlmteach.instances.sample import InstanceError, RawSample, shown
from vlmteach.instances.write import NewSample, image_kind

NAME = "data.jsonl"


def import_ruler(source: Path) -> Iterator[NewSample | InstanceError]:
    """The rows of `data.jsonl` (or of a folder that holds it), keyed `<task_name>/<index>`.

    A row without `input_image_path` is text-to-video. The ground-truth image becomes the held-out
    final frame, as PNG, and the whole row, with its checklist, the held-out metadata. A row with
    an input video is refused: no reasoner takes one.
    """
    table = source / NAME if source.is_dir() else source
    for row in json_rows(table):
        try:
            yield row if isinstance(row, InstanceError) else _sample(row, table.parent)
        except InstanceError as error:
            yield error


def is_ruler(table: Path) -> bool:
    """Whether a JSON-lines file is RULER's: its first row names a task and a checklist."""
    first = next(iter(json_rows(table)), None)
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
    meta = dict(cells)
    if isinstance(meta.get("checklist"), str):  # the hub's parquet keeps it as a JSON string
        try:
            meta["checklist"] = json.loads(meta["checklist"])
        except ValueError as error:
            raise row.refusal("checklist", str(error), "a JSON list", "repair it") from error
    members = {
        "prompt.txt": row.prompt(),
        "meta.json": json.dumps(meta, sort_keys=True).encode(),
    }
    first = row.image("input_image_path", "first.png", root)
    if first is not None:
        members["first.png"] = first
    final = row.image("gt_image_path", "final.png", root)
    if final is not None:
        members["final.png"] = _as_png(row, final)
    return NewSample(
        row.key,
        row.source,
        members,
        task=str(cells["task_name"]),
        category=cells.get("category") or None,
    )


def _as_png(row: Row, image: bytes) -> bytes:
    if image_kind(image) == "png":
        return image
    buffer = BytesIO()
    raw = RawSample(row.key, row.source, {"gt_image_path": image})
    decode_image(raw, "gt_image_path").save(buffer, "PNG")
    return buffer.getvalue()
