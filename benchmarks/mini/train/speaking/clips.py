"""Clips for the speaker to look at: tasks carried out as reasoners do, and what is wrong with them.

Most are shown as the autoencoder delivers them, from a bank; the others are drawn as they are
needed, and some spoilt. The rules say what each is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.mini.train import flaws
from benchmarks.mini.train.data import any_task, draws
from benchmarks.mini.train.teacher import data
from vlmteach.mini.world import (
    PERFECT,
    STRICT_GOAL,
    STRICT_PART,
    Execution,
    Score,
    Split,
    Task,
    family,
    perform,
    score,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from benchmarks.mini.train.teacher.attack import Codec

CLIPS = 5
"""Of a task, as many as are ever compared."""
TASKS = 400
"""In the bank."""
_BANKED, _SPOILT = 0.75, 0.3
"""Share of lessons from the bank, and of the other clips that are spoilt."""
_LEAST = {"drift": 0.8}
"""Strength from which a flaw may be told."""
_LEAST_OF_OTHERS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A video of a task."""

    frames: NDArray[np.uint8]
    """[T, H, W, 3]."""
    scored: Score
    faults: frozenset[str]
    """The flaws it has, by name; see `faults`."""

    @property
    def accepted(self) -> bool:
        """Whether the way is right, finished or not."""
        return min(self.scored.process_parts) >= STRICT_PART


def faults(task: Task, execution: Execution, scored: Score) -> frozenset[str]:
    """The flaws of an execution that show: what they lower is below strict success."""
    known = family(task.family)
    low = {
        name
        for name, got in zip(known.parts, scored.process_parts, strict=True)
        if got < STRICT_PART
    }
    found = {"extent"} if scored.goal < STRICT_GOAL else set()
    for name, lowers in known.flaws.items():
        strong = getattr(execution, name) >= _LEAST.get(name, _LEAST_OF_OTHERS)
        if name != "extent" and strong and low & set(lowers):
            found.add(name)
    return frozenset(found)


def any_execution(task: Task, rng: Generator) -> Execution:
    """Perfect; as the flawed reasoner does it, or with some of its flaws; or another way."""
    chance = rng.random()
    if chance < 0.2:
        return PERFECT
    if chance < 0.45:
        return flaws.flawed(task, rng)
    if chance < 0.65:
        return _mended(flaws.flawed(task, rng), rng)
    if chance < 0.85:
        return data.short(task, rng)
    return data.flawed(task, rng)


def _mended(execution: Execution, rng: Generator) -> Execution:
    """The execution without some of its flaws, and the others as strong as chance has it."""
    changes: dict[str, float] = {}
    for name in ("extent", "drift", "duplicate", "fade", "disturb"):
        best, got = getattr(PERFECT, name), getattr(execution, name)
        share = 0.0 if rng.random() < 0.5 else 0.4 + 0.6 * float(rng.random())
        changes[name] = best + share * (got - best)
    return replace(execution, **changes)


def executions(task: Task, count: int, rng: Generator) -> list[Execution]:
    """Of one task, many of them much like the first: a reasoner's failures hardly differ."""
    first = any_execution(task, rng)
    found = [first]
    while len(found) < count:
        other = any_execution(task, rng)
        if rng.random() < 0.6:
            nudge = float(rng.uniform(-0.12, 0.12))
            other = replace(first, extent=min(max(first.extent + nudge, 0.0), 1.0))
        found.append(other)
    return found


def clips_of(task: Task, done: Sequence[Execution], videos: Sequence[Any]) -> list[Clip]:
    """Clips of videos, scored by the rules."""
    made = []
    for execution, video in zip(done, videos, strict=True):
        scored = score(task, video)
        made.append(Clip(video, scored, faults(task, execution, scored)))
    return made


class Clips:
    """Tasks with `CLIPS` clips each; those of the bank are made when they are first asked for.

    Args:
        codec: the recipe's autoencoder.
        seed: of the bank.
        split: whose tasks.
    """

    def __init__(self, codec: Codec, seed: int, split: Split = "train") -> None:
        self.codec = codec
        self.seed = seed
        self.split: Split = split
        self._bank: dict[int, tuple[Task, list[Clip]]] = {}

    def task(self, rng: Generator) -> Task:
        """A task of any family."""
        return any_task(rng, self.split)

    def some(self, rng: Generator, count: int) -> tuple[Task, list[Clip]]:
        """A task, and `count` of its clips."""
        if rng.random() < _BANKED:
            index = int(rng.integers(TASKS))
            if index not in self._bank:
                self._bank[index] = self._delivered(index)
            task, clips = self._bank[index]
            return task, [clips[i] for i in rng.permutation(CLIPS)[:count]]
        task = self.task(rng)
        done = executions(task, count, rng)
        videos = [perform(task, execution) for execution in done]
        if rng.random() < _SPOILT:
            videos = [_rounded(data.spoilt(v / np.float32(255), rng)) for v in videos]
        return task, clips_of(task, done, videos)

    def _delivered(self, index: int) -> tuple[Task, list[Clip]]:
        rng = draws(self.seed, "speaker/clips", index)
        task = self.task(rng)
        done = executions(task, CLIPS, rng)
        return task, clips_of(task, done, shown(self.codec, [perform(task, e) for e in done]))


def shown(codec: Codec, videos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Videos as the autoencoder delivers them; the given first frame stays as it was drawn."""
    frames = torch.from_numpy(np.stack(videos)).permute(0, 1, 4, 2, 3) / 255
    with torch.no_grad():
        decoded = codec.decode(codec.encode(frames)).permute(0, 1, 3, 4, 2).numpy()
    return [_rounded(video) for video in decoded]


def _rounded(video: Any) -> NDArray[np.uint8]:
    return np.rint(np.clip(video, 0, 1) * 255).astype(np.uint8)
