"""The clips of a finished run as `<out>/<model>/<task_name>/<index>.mp4`.

Beside each model's folder lies `<model>.json`, the manifest: what was exported, with the sha256 of
every video.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ruler.frames import facts, retagged, step
from benchmarks.ruler.items import Item, check_model
from vlmteach.ledger import DONE, ERROR, folder_name
from vlmteach.presets import read_yaml
from vlmteach.record import read_json, write_json
from vlmteach.rows import cost_of

CLIP = "clip.mp4"
SHOWN = 20
"""Missing clips named in a message; all are counted."""


class IncompleteError(ValueError):
    """A set that lacks something.

    Attributes:
        missing: what, one line each.
    """

    def __init__(self, what: str, missing: list[str], remedy: str) -> None:
        shown = "\n  ".join(missing[:SHOWN])
        more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        super().__init__(f"{what}\n  {shown}{more}\n{remedy}")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Exported:
    """A model's exported videos, as its manifest tells."""

    model: str
    folder: Path
    teacher: str
    """The family of the teacher its run was configured with."""
    videos: dict[str, str]
    """`<task_name>/<index>` -> sha256 of the file."""
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`<task_name>/<index>` -> `seed`, and what the clip cost where the manifest knows it."""

    def path(self, item: Item) -> Path:
        """The clip of an item."""
        return self.folder / f"{item.name}.mp4"


def export(
    items: Iterable[Item], run: Path, out: Path, model: str, fps: float | None = None
) -> Path:
    """Writes one run's clips, and last the manifest.

    Without `fps` a clip keeps its own frames per second, real time, and its bytes. With it the
    file says another rate, its frames untouched. The judge looks at two frames a second of what
    the file says: a lower rate shows it more frames of the same clip, at another apparent speed.

    Args:
        items: the whole set.
        run: the output folder of `python -m vlmteach.fit`.
        out: where the model's folder goes.
        model: its name.
        fps: the rate the files say; None keeps each clip's own.

    Returns:
        The model's folder.

    Raises:
        IncompleteError: a clip is missing, of other content, or unreadable; nothing is written.
        ValueError: no run, a name that is none, or a folder that holds other files.
    """
    folder = out / check_model(model)
    config = _config(run)
    wanted = [(item.name, item.key, item.content) for item in items]
    faults = [(key, _fault(run, key, content)) for _, key, content in wanted]
    missing = [f"{key}: {fault}" for key, fault in faults if fault]
    if missing:
        raise IncompleteError(
            f"{run}: got {len(wanted) - len(missing)} of {len(wanted)} clips, expected all; "
            "missing:",
            missing,
            "finish the run with the same `python -m vlmteach.fit` command, then export again",
        )
    _refuse_leftovers(folder, {f"{name}.mp4" for name, _, _ in wanted})
    folder.mkdir(parents=True, exist_ok=True)
    manifest = out / f"{model}.json"
    manifest.unlink(missing_ok=True)
    videos = []
    for name, key, _ in wanted:
        video = (run / folder_name(key) / CLIP).read_bytes()
        if fps is not None:
            video = retagged(video, fps, key)
        frames, rate = facts(video, key)
        path = folder / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        _write(path, video)
        videos.append(
            {
                "video": f"{name}.mp4",
                "key": key,
                "sha256": hashlib.sha256(video).hexdigest(),
                "frames": frames,
                "fps": rate,
                "judged_frames": -(-frames // step(rate)),
                "cost": _cost(run / folder_name(key)),
            }
        )
    told = {
        "benchmark": "RULER-Bench",
        "model": model,
        "method": config.get("method"),
        "seed": config["run"].get("seed"),
        "teacher": config["teacher"]["family"],
        "fps": "each clip's own" if fps is None else fps,
        "videos": videos,
    }
    write_json(manifest, told)
    return folder


def read_exported(out: Path) -> list[Exported]:
    """The models exported to a folder, by name.

    Raises:
        ValueError: none, or a manifest that is none.
    """
    paths = sorted(path for path in out.glob("*.json") if path.is_file())
    if not paths:
        raise ValueError(
            f"--videos {out}: got no <model>.json, expected what `python -m benchmarks.ruler "
            "export` writes; export first"
        )
    return [_exported(path) for path in paths]


def _exported(path: Path) -> Exported:
    try:
        manifest = read_json(path)
        videos = {v["video"].removesuffix(".mp4"): str(v["sha256"]) for v in manifest["videos"]}
        teacher, seed = manifest["teacher"], manifest.get("seed") or 0
        costs = {
            v["video"].removesuffix(".mp4"): v.get("cost") or {"seed": seed}
            for v in manifest["videos"]
        }
        assert isinstance(teacher, str)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path}: got {type(error).__name__}: {error}, expected a manifest; export again"
        ) from error
    model = check_model(path.stem)
    return Exported(model, path.parent / model, teacher, videos, costs)


def _cost(folder: Path) -> dict[str, Any]:
    """The seed that a clip was made with, and what it cost."""
    done = read_json(folder / DONE)
    return {"seed": done["seed"], **cost_of(done)}


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    try:
        config = read_yaml(path)
        if isinstance(config["run"], dict) and isinstance(config["teacher"]["family"], str):
            return config
        error = "no teacher.family"
    except (LookupError, TypeError) as caught:
        error = f"{type(caught).__name__}: {caught}"
    raise ValueError(f"{path}: got {error}, expected the config of a run; name its output folder")


def _fault(run: Path, key: str, content: str) -> str | None:
    """What is wrong with an instance's clip; None where it can be exported."""
    folder = run / folder_name(key)
    if not (folder / DONE).is_file():
        if (folder / ERROR).is_file():
            return f"given up: {str(read_json(folder / ERROR).get('error'))[:200]}"
        return "no result"
    if read_json(folder / DONE).get("digest") != content:
        return "made from other content under this key"
    clip = folder / CLIP
    if not clip.is_file():
        return f"no {CLIP}"
    try:
        facts(clip.read_bytes(), CLIP)
    except ValueError as error:
        return str(error)
    return None


def _refuse_leftovers(folder: Path, expected: set[str]) -> None:
    """A judge that walks the tree would take a file left over for one of the set."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if others := sorted(found - expected):
        raise ValueError(
            f"{folder}: got {others[0]!r} and {len(others) - 1} more files that are not of this "
            "set, expected none; remove the folder or name another model"
        )


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
