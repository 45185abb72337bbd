"""One row per scored clip: which clip it is, what it cost, what was measured.

`benchmarks/table/rows.py` says what a file of rows looks like. In a run's folder, whoever scores an
instance's clip puts the measures beside its `done.json`, as `score.json`; `fit` gathers the rows of
its run into `table.json`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmteach.ledger import DONE, ERROR
from vlmteach.record import read_json, read_object, write_json
from vlmteach.text import printable

Row = dict[str, Any]

IDENTITY = {"setting": str, "key": str, "seed": int}
COSTS = (
    "seconds",
    "reasoner_forwards",
    "reasoner_backwards",
    "teacher_calls",
    "steps",
    "fallbacks",
)
LOSSES = ("first_loss", "kept_loss")
CLIP, BASE = "clip.mp4", "base.mp4"
"""What is delivered, and the same noise without the adapter."""
PREDICTIONS, PREDICTION_INDEX = "predictions.jpg", "predictions.json"
"""What was watched before each update, a row each; and which row and column is what."""
SCORE = "score.json"
GUARD = "guard.json"
"""How the clip looks beside its base, and what the teacher said before and after."""
SCALES = "scales.json"
"""What a sweep of an adapter's scales found; an instance's page shows it where it lies in the
instance's folder `scales`."""
INSTANCE, FIRST = "instance.json", "first.jpg"
"""What an instance asks: its words, and its first frame, made small."""
_NEEDED = {"done": ("key", "seed", "compute"), "error": ("key", "error")}
_KINDS = {"key": str, "error": str, "digest": str, "method": str, "seed": int, "compute": dict}
"""Of entries that are read without another look."""
CLIP_DIGEST = "clip_sha256"
"""Label of a score: the clip it was made from. Of another clip than the folder's, it counts not."""


def read_row(path: Path) -> dict[str, Any] | None:
    """`done.json` or `error.json` of an instance; None where it is not as it was written."""
    row, kind = read_object(path), "error" if path.name == ERROR else "done"
    if row is None or not set(_NEEDED[kind]) <= row.keys() or row.get("status", kind) != kind:
        return None
    if not all(isinstance(row[name], _KINDS[name]) for name in _KINDS.keys() & row.keys()):
        return None
    losses = (row.get(name) for name in LOSSES)
    numbers = [*row.get("compute", {}).values(), *(loss for loss in losses if loss is not None)]
    return row if all(isinstance(number, int | float) for number in numbers) else None


def row_of(setting: str, outcome: Mapping[str, Any], measures: Mapping[str, Any]) -> Row:
    """The row of one clip.

    Args:
        setting: a setting's name.
        outcome: as in `done.json`.
        measures: flat; what was measured, and labels.
    """
    identity = {"setting": setting, "key": outcome["key"], "seed": outcome["seed"]}
    losses = {name: outcome.get(name) for name in LOSSES}
    return {**identity, **cost_of(outcome), **measures, **losses, **identity}


def cost_of(outcome: Mapping[str, Any]) -> dict[str, float | None]:
    """`COSTS` of a clip by name, out of its `done.json`; None where nothing was counted."""
    return {name: outcome["compute"].get(name, outcome.get(name)) for name in COSTS}


def digest_of(path: Path) -> str:
    """sha256 of a file, as a clip's score has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """What `score.json` of an instance's folder says: first of its clip, then of candidates.

    Empty where it has none, or one of another clip than the folder's.
    """
    if not (folder / SCORE).exists():
        return []
    scores = read_json(folder / SCORE)
    scores = scores if isinstance(scores, list) else [scores]
    if not scores or not all(isinstance(score, dict) for score in scores):
        raise ValueError(f"{folder / SCORE}: got no measures by name, expected them; remove it")
    clip, known = folder / CLIP, scores[0].get(CLIP_DIGEST)
    return scores if known is None or (clip.exists() and digest_of(clip) == known) else []


def _told_scores(folder: Path) -> list[dict[str, Any]]:
    """`read_scores`; those that cannot be read are told, and are none."""
    try:
        return read_scores(folder)
    except ValueError as error:
        print(f"warning: {printable(str(error))}", file=sys.stderr)
        return []


def rows_of_run(setting: str, run: Path, *, spares: bool = False) -> list[Row]:
    """The rows of a run's finished and scored instances; of all finished ones, with their losses,
    where none is scored.

    Args:
        setting: the run's name in its rows.
        run: its folder.
        spares: whether a score that cannot be read is told and left out.

    Raises:
        ValueError: such a score, unless it is spared.
    """
    rows = ((read_row(done), done.parent) for done in sorted(run.glob(f"*/{DONE}")))
    read = _told_scores if spares else read_scores
    found = [(row, read(folder)) for row, folder in rows if row is not None]
    scored = [row_of(setting, outcome, scores[0]) for outcome, scores in found if scores]
    return scored or [row_of(setting, outcome, {}) for outcome, _ in found]


def write_table(run: Path) -> None:
    """Gathers a run's rows into its `table.json`; the setting is the folder's name."""
    write_json(run / "table.json", rows_of_run(run.resolve().name, run, spares=True))
