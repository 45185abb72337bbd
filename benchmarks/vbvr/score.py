"""Videos through the EvalKit, one row each; an error is an error row and never a score of 0.

In the output folder: `kit.json` (which kit, and how it scored the ground truth itself),
`<model>.jsonl` (a row per sample of the data tree), `<model>.manifest.json` (what was scored, as
`export` wrote it), `kit.log` (what the kit printed).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.vbvr.clips import sha256
from benchmarks.vbvr.export import changed, manifest_path
from benchmarks.vbvr.kit import UNKNOWN, Kit, KitError
from benchmarks.vbvr.layout import PLAIN, TRUTH, Place, compare, listed, places_in, refuse_leftovers
from vlmteach.instances.vbvr_tasks import BENCHMARK
from vlmteach.record import read_json, write_json, write_text

BOUND = 0.67
"""What the ground truth must score on average, task-specific, before any other score counts.

On seven tasks a sound kit gave the truth 0.94 and a frozen first frame 0.67. Truth at or below that
means a kit that sees no more in a solution than in a still picture. Single tasks may lie lower:
their scorers are strict with the truth too, and the report names them.
"""
SELF_CHECKS = 8
"""Ground truths scored first, of as many tasks, spread evenly over those in the data tree."""
AGREE = 1e-6
"""By how much the task-specific score of the kit's two entry points may differ."""


def score(
    kit_path: Path, python: str, videos: Path, models: Sequence[str], data: Path, out: Path
) -> int:
    """Scores what has no row yet; returns how many rows are errors.

    A row is kept when video, ground truth and kit are the same as when it was made.

    Raises:
        ValueError: a kit, data tree or model's folder that cannot be scored, or a kit that fails
            its self-check.
    """
    places = places_in(data)
    for model in models:
        _check_folder(videos, model, places)
    out.mkdir(parents=True, exist_ok=True)
    kit = Kit(kit_path, python, out / "kit.log")
    try:
        if kit.identity["commit"] == UNKNOWN:
            print(f"warning: {kit_path} is no git tree of its own: its commit is unknown")
        elif kit.identity["dirty"]:
            print(f"warning: {kit_path} has changes that its commit does not hold: recorded")
        _self_check(kit, data, places, out / "kit.json")
        return sum(_score_model(kit, videos, model, data, places, out) for model in models)
    finally:
        kit.close()


def _check_folder(videos: Path, model: str, places: Sequence[Place]) -> None:
    """Raises ValueError for a model without a folder, or with files that nobody would score."""
    folder = videos / model
    if not PLAIN.fullmatch(model) or not folder.is_dir():
        raise ValueError(f"--model: got {model}, expected a folder of that name in {videos}")
    refuse_leftovers(folder, compare(folder, [place.video for place in places])[1])
    if manifest_path(videos, model).is_file():
        other = changed(videos, model)
        if other:
            raise ValueError(
                f"{folder}: got {len(other)} videos that are not those of its manifest, expected "
                "what was exported; export again:" + listed(other)
            )


def truth_sha256(data: Path, place: Place) -> str:
    """One hash over the files of a sample."""
    hashes = [sha256(data / place.folder / name) for name in TRUTH]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _self_check(kit: Kit, data: Path, places: Sequence[Place], record: Path) -> None:
    """Scores some of the ground truth, or takes what an earlier run found, and judges it.

    Raises:
        ValueError: an error, entry points that differ, or a mean not above `BOUND`.
    """
    first_of_task = list({(p.split, p.task): p for p in reversed(places)}.values())[::-1]
    step = max(1, len(first_of_task) / SELF_CHECKS)
    chosen = [first_of_task[int(n * step)] for n in range(min(SELF_CHECKS, len(first_of_task)))]
    asked = {place.folder: truth_sha256(data, place) for place in chosen}
    known = read_json(record) if record.is_file() else {}
    if known.get("kit") == kit.identity and known.get("truths") == asked and known["passed"]:
        write_json(record, {**known, "samples": len(places)})
        return
    rows, faults = [], []
    for place in tqdm(chosen, desc="ground truth", unit="video"):
        truth = data / place.folder / "ground_truth.mp4"
        try:
            row = kit.score(data, place, truth)
            only = kit.call(data, place, truth, task_specific_only=True)["score"]
        except KitError as error:
            faults.append(f"{place.folder}: {error}")
            continue
        rows.append({"sample": place.folder, **row})
        if abs(only - row["task_specific"]) > AGREE:
            faults.append(
                f"{place.folder}: task-specific {only} alone and {row['task_specific']} among five"
            )
    mean = sum(row["task_specific"] for row in rows) / len(rows) if rows else None
    if mean is not None and mean <= BOUND:
        faults.append(
            f"mean {mean:.3f}, expected above {BOUND}: a sound kit gave truth 0.94 and a still "
            "picture 0.67"
        )
    write_json(
        record,
        {
            "kit": kit.identity,
            "samples": len(places),
            "truths": asked,
            "passed": not faults,
            "bound": BOUND,
            "mean_task_specific": mean,
            "rows": rows,
            "faults": faults,
        },
    )
    if faults:
        raise ValueError(
            f"--kit: got {len(faults)} faults when it scored the ground truth itself, expected "
            f"none; its scores would mean nothing, so none is made (see {record}):" + listed(faults)
        )


def _score_model(
    kit: Kit, videos: Path, model: str, data: Path, places: Sequence[Place], out: Path
) -> int:
    """Rows of one model, written as they come; returns how many are errors."""
    manifest = manifest_path(videos, model)
    if manifest.is_file():
        write_json(manifest_path(out, f"{model}.manifest"), read_json(manifest))
    path = out / f"{model}.jsonl"
    old = read_rows(path)
    write_rows(path, old)  # without a line that was cut off, which the next would continue
    known = {(row["split"], row["task"], row["index"]): row for row in old}
    rows = []
    with path.open("a", encoding="utf-8") as file:
        for place in tqdm(places, desc=model, unit="video"):
            row = _row(kit, videos / model / place.video, data, place, known)
            rows.append({"model": model, **row})
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    write_rows(path, rows)
    errors = [row for row in rows if row["status"] == "error"]
    for row in errors:
        print(f"{model}: {row['split']}/{row['task']}/{row['index']}: {row['error']}")
    return len(errors)


def _row(
    kit: Kit, video: Path, data: Path, place: Place, known: dict[tuple, dict[str, Any]]
) -> dict[str, Any]:
    """One row: the one that is known where it is of the same, or a new one."""
    row: dict[str, Any] = {
        "split": place.split,
        "task": place.task,
        "index": place.index,
        "category": BENCHMARK.get(place.task, (None, None))[1],
    }
    if not video.is_file():
        return {**row, "status": "error", "error": "no video"}
    made_of = {
        "video_sha256": sha256(video),
        "truth_sha256": truth_sha256(data, place),
        "kit": kit.identity,
    }
    old = known.get((place.split, place.task, place.index), {})
    if old.get("status") == "done" and {name: old[name] for name in made_of} == made_of:
        return {name: value for name, value in old.items() if name != "model"}
    try:
        scored = kit.score(data, place, video)
    except KitError as error:
        return {**row, "status": "error", "error": str(error), **made_of}
    scored["category"] = scored["category"] or row["category"]
    return {**row, "status": "done", **scored, **made_of}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One JSON object a line, written whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a model's file; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
