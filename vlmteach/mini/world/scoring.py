"""The rules: what a video of a task is worth, read off its pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.draw import widened
from vlmteach.mini.world.evidence import Evidence, fall, rise, worst
from vlmteach.mini.world.scene import Scene, Task
from vlmteach.mini.world.tasks import family
from vlmteach.mini.world.types import SIZE, Fixture, Float, Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRICT_GOAL = 0.9
"""Goal score from which the goal counts as reached."""
STRICT_PART = 0.75
"""Score from which a process query counts as met."""
GOAL_POWER = math.log(0.5) / math.log(STRICT_GOAL)
PART_POWER = math.log(0.5) / math.log(STRICT_PART)
"""Exponents of the labels: 6.6 and 2.4."""


def score(task: Task, video: NDArray) -> Score:
    """Scores a video by the rules of its task.

    Args:
        task: as `make` or `task_of` gives it.
        video: [T, H, W, 3], uint8, or float in 0..1 (clipped).

    Raises:
        ValueError: a video of another shape, or with values that are not finite.
    """
    scene = task.scene
    evidence = Evidence(video, scene.colours)
    measured = scene.action.measure(evidence, scene.fixtures)
    wanted = family(task.family).parts
    parts = tuple(
        _rest(scene, evidence) if name == "rest" else measured.parts[name] for name in wanted
    )
    process = float(np.prod(parts) ** (1 / len(parts)))
    strict = measured.goal >= STRICT_GOAL and min(parts) >= STRICT_PART
    return Score(
        goal=measured.goal,
        process=process,
        overall=(measured.goal + process) / 2,
        strict=strict,
        process_parts=parts,
    )


def answers(task: Task, video: NDArray) -> tuple[float, ...]:
    """How far the answer to each query is yes: soft labels in 0..1, in the order of the queries.

    A power of the score, so that the label is one half where strict success begins: yes is what
    the rules call done, and yet the log of the label has a slope everywhere on the way there.

    Raises:
        ValueError: as in `score`.
    """
    scored = score(task, video)
    return (
        scored.goal**GOAL_POWER,
        *(part**PART_POWER for part in scored.process_parts),
    )


def _rest(scene: Scene, evidence: Evidence) -> float:
    """Whether the bystanders keep their look and nothing else comes up, 0..1.

    What the acting colour does elsewhere is the action's own business.
    """
    acting = widened(scene.action.zone, 2)
    kept = [
        rise(evidence.kept([fixture.colour], _seen(fixture, scene)), 0.45, 0.75)
        for fixture in scene.fixtures
        if fixture.bystander
    ]
    strays = np.zeros(len(kept[0]), np.float32)
    for name in scene.colours:
        if name == scene.action.colour:
            continue
        own = acting
        for fixture in scene.fixtures:
            if fixture.colour == name:
                own = np.maximum(own, widened(fixture.mask))
        strays += (evidence.of(name) * (1 - own)).sum((1, 2))
    return worst(np.minimum.reduce(kept) * fall(strays / SIZE, 0.2, 1.0))


def _seen(fixture: Fixture, scene: Scene) -> Float:
    """The part of a fixture that the perfect action leaves in sight."""
    return fixture.mask * (scene.action.zone < 0.05)
