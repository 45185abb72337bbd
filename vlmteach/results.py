"""The rows of a run: one per instance, kept in its folder, gathered into `results.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmteach.instances import InstanceError, RawSample, content_digest, read_samples
from vlmteach.ledger import DONE, ERROR, Ledger, folder_name
from vlmteach.record import read_object, write_json, write_text
from vlmteach.rows import CLIP, FIRST, GUARD, INSTANCE, read_row
from vlmteach.stills import thumbnail, write_still
from vlmteach.text import printable
from vlmteach.types import Instance, Outcome


def done_row(outcome: Outcome) -> dict[str, Any]:
    """The row of `results.jsonl` for a finished instance."""
    return {"status": "done", **dataclasses.asdict(outcome)}


def error_row(raw: RawSample, error: BaseException) -> dict[str, Any]:
    """The row of `results.jsonl` for an instance that could not be solved."""
    row = {
        "key": raw.key,
        "status": "error",
        "kind": "bad_sample" if isinstance(error, ValueError) else "failed",
        "source": raw.source,
        "error": f"{type(error).__name__}: {error}",
    }
    if not isinstance(error, InstanceError):
        row["traceback"] = "".join(traceback.format_exception(error))
    return row


def keep_instance(folder: Path, instance: Instance) -> None:
    """Writes what an instance asks into its folder: `instance.json`, and its first frame, made
    small, as `first.jpg`."""
    told = {
        name: getattr(instance, name) for name in ("key", "prompt", "task", "category", "split")
    }
    write_json(folder / INSTANCE, told)
    if instance.first_frame is not None:
        write_still(folder / FIRST, thumbnail(instance.first_frame))


def keep_error(folder: Path, raw: RawSample, error: BaseException) -> bool:
    """Writes the row of an instance that could not be solved into its folder.

    Returns:
        Whether it could be written: a full disk, say, may be the error itself.
    """
    try:
        write_json(folder / ERROR, error_row(raw, error))
    except OSError as failure:
        told = f"warning: {failure}: no row for this error: {type(error).__name__}: {error}"
        print(printable(told), file=sys.stderr, flush=True)
        return False
    return True


def reopen(out: Path, sources: Sequence[str], keys: list[str]) -> None:
    """Makes missing again: an earlier run's failures, results of samples that have changed, and
    results of which the row cannot be read or the clip is gone."""
    if not any((out / folder_name(key)).exists() for key in keys):
        return
    for raw in read_samples(sources):
        folder = out / folder_name(raw.key)
        (folder / ERROR).unlink(missing_ok=True)
        done = folder / DONE
        if not done.exists():
            continue
        row = read_row(done) or {}
        is_whole = row.get("key") == raw.key and (folder / CLIP).is_file()
        if not is_whole or row.get("digest") != _digest(raw):
            done.unlink()


def _digest(raw: RawSample) -> str | None:
    try:
        return content_digest(raw)
    except InstanceError:  # it was good and is bad now: solving it again will say how
        return None


def miss(out: Path, ledger: Ledger, sources: Sequence[str], keys: list[str], told: str) -> None:
    """Writes the error rows of keys that a pass over the sources did not find."""
    for key in keys:
        claim = ledger.claim(key)
        if claim is not None:
            row = {
                "key": key,
                "status": "error",
                "kind": "bad_sample",
                "source": " ".join(sources),
                "error": f"got {told}, expected the one that was there when the run began: the "
                "source has changed; run the same command again to read it anew",
            }
            folder = out / folder_name(key)
            make_room(folder)
            write_json(folder / ERROR, row)
            ledger.release(claim)


def make_room(folder: Path) -> None:
    """An instance's folder, without the scratch files of a process that died in it, and without
    what was said of an earlier clip."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GUARD).unlink(missing_ok=True)
    shutil.rmtree(folder / "scales", ignore_errors=True)
    for scratch in folder.glob(".*"):
        if scratch.is_file():
            scratch.unlink(missing_ok=True)


def give_up(out: Path, keys: list[str], ledger: Ledger) -> None:
    """Writes the error row of each instance in which a process died once too often."""
    for key in ledger.poisoned(keys):
        folder = out / folder_name(key)
        folder.mkdir(parents=True, exist_ok=True)
        row = {
            "key": key,
            "status": "error",
            "kind": "gave_up",
            "error": f"got processes that died in this instance (run.max_deaths "
            f"{ledger.max_deaths}), expected a result; raise run.max_deaths to try it again",
        }
        write_json(folder / ERROR, row)


def collect(out: Path, keys: list[str]) -> list[dict[str, Any]]:
    """Reads every instance's row off its folder and writes `results.jsonl`, sorted by key."""
    rows = []
    for key in sorted(keys):
        folder = out / folder_name(key)
        found = next((folder / n for n in (DONE, ERROR) if (folder / n).exists()), None)
        if found is not None and (row := read_row(found)) is not None:
            rows.append(row)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(out / "results.jsonl", "".join(line + "\n" for line in lines))
    return rows


def fits(out: Path, keys: list[str]) -> list[dict[str, Any]]:
    """The records (`fit.json`) of the finished instances that have one, sorted by key."""
    folders = [out / folder_name(key) for key in sorted(keys)]
    finished = [folder / "fit.json" for folder in folders if (folder / DONE).exists()]
    return [record for path in finished if (record := read_object(path)) is not None]
