"""Families by name, tasks from seeds, and the drawing of a task carried out well or badly."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmteach.mini.world.draw import GROUND, lay
from vlmteach.mini.world.families import BUILDERS
from vlmteach.mini.world.families.builder import Builder
from vlmteach.mini.world.scene import Scene, Task
from vlmteach.mini.world.splits import task_generator
from vlmteach.mini.world.types import (
    FLAWS,
    FRAMES,
    PERFECT,
    SIZE,
    SPLITS,
    Execution,
    Family,
    Float,
    Split,
    checked_meta,
)
from vlmteach.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRIVAL = 7
"""The frame at which the perfect action is done; the one after it stands still."""


@cache
def _builders() -> dict[str, Builder]:
    return {builder.family.name: builder for builder in BUILDERS}


def families() -> tuple[Family, ...]:
    """All families, by category."""
    return tuple(builder.family for builder in BUILDERS)


def family(name: str) -> Family:
    """A family by its name.

    Raises:
        ValueError: no such family.
    """
    return _builder(name).family


def _builder(name: str) -> Builder:
    if name not in _builders():
        raise ValueError(
            f"family: got {name!r}, expected one of {', '.join(_builders())}; choose one of them"
        )
    return _builders()[name]


def make(family: str, split: Split, seed: int) -> Task:
    """The task of a seed: the same arguments give the same task, everywhere.

    Args:
        family: a family's name.
        split: decides which compositions may occur; see `splits`.
        seed: any integer from 0.

    Raises:
        ValueError: no such family or split.
    """
    builder = _builder(family)
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    draft = builder.draft(task_generator(family, split, seed), split)
    truth = _render(draft.scene, PERFECT)
    return Task(
        key=f"{split}/{family}/{seed}",
        family=family,
        category=builder.family.category,
        split=split,
        seed=seed,
        prompt=draft.prompt,
        queries=(Query(draft.goal, "goal"), *(Query(text, "process") for text in draft.process)),
        first_frame=truth[0],
        truth=truth,
        cue=draft.cue,
        scene=draft.scene,
    )


def task_of(meta: dict[str, Any]) -> Task:
    """The task behind a sample's `<key>.meta.json`.

    Raises:
        ValueError: metadata that `export` did not write.
    """
    return make(*checked_meta(meta))


def cue(task: Task) -> tuple[str, ...]:
    """Words of the acting thing, seen in prompt or first frame, that a flaw can be tied to: its
    colour first, then its shape or another attribute."""
    return task.cue


def perform(task: Task, execution: Execution) -> NDArray[np.uint8]:
    """The task carried out with flaws, from its own first frame.

    Returns:
        uint8 [T, H, W, 3], RGB; the truth itself for `PERFECT`.

    Raises:
        ValueError: a flaw that means nothing in the task's family.
    """
    known = family(task.family).flaws
    for name in FLAWS:
        if name not in known and getattr(execution, name) != getattr(PERFECT, name):
            raise ValueError(
                f"{name}: got {getattr(execution, name)} for family {task.family}, whose flaws "
                f"are {', '.join(known)}; leave {name} alone"
            )
    return task.truth.copy() if execution == PERFECT else _render(task.scene, execution)


def _tempo(late: float, falling: bool) -> Float:
    """Done share of its own way per frame, [T], 0 to 1."""
    start = _ARRIVAL * late
    tempo = np.clip((np.arange(FRAMES) - start) / max(_ARRIVAL - start, 0.01), 0, 1)
    return (tempo**2 if falling else tempo).astype(np.float32)


def _render(scene: Scene, execution: Execution) -> NDArray[np.uint8]:
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.float32)
    frames[:] = GROUND
    worn = execution.disturb * np.linspace(0, 1, FRAMES, dtype=np.float32)[:, None, None]
    for fixture in scene.fixtures:
        if worn.any() and fixture.bystander:
            lay(frames, fixture.mask * (1 - worn), fixture.colour)
        else:
            lay(frames, np.broadcast_to(fixture.mask, frames.shape[:3]), fixture.colour)
    scene.action.draw(frames, _tempo(execution.late, scene.falling), execution)
    return np.rint(frames * 255).astype(np.uint8)
