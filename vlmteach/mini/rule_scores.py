"""What the rules say of a run's clips, where a sample tells by which rules: the miniature's tasks.

Reads held-out metadata, so it runs when the clips are made, and knows nothing of how they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmteach.instances import read_held_out
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.video import read_video


@dataclass(frozen=True, slots=True)
class RuleScores:
    """An instance's clips by the rules of its task."""

    before: world.Score | None
    """Of `base.mp4`; None where the run wrote none."""
    after: world.Score
    """Of `clip.mp4`."""


def rule_scores(sources: Sequence[str], out: Path) -> dict[str, RuleScores]:
    """Instance key -> scores, for the finished instances of a run that are tasks of the miniature.

    Args:
        sources: the run's instances.
        out: its output folder.
    """
    return dict(_scored(sources, out))


def _scored(sources: Sequence[str], out: Path) -> Iterator[tuple[str, RuleScores]]:
    for held in read_held_out(sources):
        folder = out / folder_name(held.key)
        if held.meta is None or not (folder / DONE).exists():
            continue
        try:
            task = world.task_of(held.meta)
            base = folder / "base.mp4"
            before = _score(task, base) if base.exists() else None
            yield held.key, RuleScores(before=before, after=_score(task, folder / "clip.mp4"))
        except ValueError:
            continue  # somebody else's metadata, or a clip of another size: nothing to judge by


def _score(task: world.Task, clip: Path) -> world.Score:
    return world.score(task, read_video(clip)[0].numpy())
