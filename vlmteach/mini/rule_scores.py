"""What the rules say of a run's clips, where a sample tells by which rules: the miniature's tasks.

Computed once and kept in the instance's `score.json`, as the measures of its row. Reads held-out
metadata, so it runs when the clips are made, and knows nothing of how they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlmteach.instances import InstanceError, read_held_out
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.record import write_json
from vlmteach.rows import CLIP_DIGEST, SCORE, digest_of, read_scores
from vlmteach.video import read_video

MEASURES = ("goal", "process", "overall", "strict")
RULES = "rules"
"""Label of a score: the rules it was made by."""


@dataclass(frozen=True, slots=True)
class RuleScore:
    """A clip by the rules of its task; the numbers in 0..1."""

    goal: float
    process: float
    overall: float
    strict: bool


@dataclass(frozen=True, slots=True)
class RuleScores:
    """An instance's clips by the rules of its task."""

    before: RuleScore | None
    """Of `base.mp4`; None where the run wrote none."""
    after: RuleScore
    """Of `clip.mp4`."""


def rule_scores(sources: Sequence[str], out: Path) -> dict[str, RuleScores]:
    """Instance key -> scores, for the finished instances of a run that are tasks of the miniature.

    What `score.json` has of the same clip by the same rules is read back; the others are scored
    and written.

    Args:
        sources: the run's instances.
        out: its output folder.
    """
    return dict(_scored(sources, out))


def _scored(sources: Sequence[str], out: Path) -> Iterator[tuple[str, RuleScores]]:
    held_out = read_held_out(sources)
    while True:
        try:
            held = next(held_out, None)
        except InstanceError:
            continue  # metadata that is no object
        if held is None:
            return
        folder = out / folder_name(held.key)
        if held.meta is None or not (folder / DONE).exists():
            continue
        try:
            kept = kept_scores(world.task_of(held.meta), folder)
        except (ValueError, OSError):
            continue  # somebody else's metadata, no clip, or one of another size
        before = _read(kept[0], "base_") if "base_strict" in kept[0] else None
        yield held.key, RuleScores(before=before, after=_read(kept[0], ""))


def kept_scores(task: world.Task, folder: Path) -> list[dict[str, Any]]:
    """What `score.json` of a finished instance says: first of its clip, by the rules as they are.

    Args:
        task: what the instance is.
        folder: the instance's, with `clip.mp4`; the file is written where it is missing, or of
            another clip or other rules.

    Raises:
        ValueError: a clip of another size than the miniature's.
    """
    try:
        kept = read_scores(folder)
    except ValueError:  # scored anew
        kept = []
    if kept and kept[0].get(RULES) == rules_version() and kept[0].keys() >= set(MEASURES):
        return kept
    clip, base = folder / "clip.mp4", folder / "base.mp4"
    scored = measures(task, clip)
    if base.exists():
        scored |= {f"base_{name}": value for name, value in by_rules(task, base).items()}
    write_json(folder / SCORE, scored)
    return [scored]


def measures(task: world.Task, clip: Path) -> dict[str, Any]:
    """A clip's measures and labels, flat."""
    return {
        "category": task.category,
        "family": task.family,
        **by_rules(task, clip),
        RULES: rules_version(),
        CLIP_DIGEST: digest_of(clip),
    }


def by_rules(task: world.Task, clip: Path) -> dict[str, float | bool]:
    """`MEASURES` of a video file, by name."""
    scored = world.score(task, read_video(clip)[0].numpy())
    return {name: getattr(scored, name) for name in MEASURES}


@cache
def rules_version() -> str:
    """sha256 of the world's sources, 16 hexadecimal digits: other rules, other scores."""
    digest = hashlib.sha256()
    for file in sorted(Path(world.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read(measured: dict[str, Any], prefix: str) -> RuleScore:
    return RuleScore(**{name: measured[prefix + name] for name in MEASURES})
