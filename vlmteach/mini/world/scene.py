"""A task and what it is made of: fixtures, and an action that draws and measures itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlmteach.mini.world.evidence import Evidence
from vlmteach.mini.world.types import Category, Execution, Fixture, Float, Measured, Split
from vlmteach.types import Query


class Action(Protocol):
    """What happens in a task: drawn with flaws, and measured from pixels."""

    @property
    def colour(self) -> str:
        """The colour it acts with."""
        ...

    @property
    def zone(self) -> Float:
        """Coverage [H, W]: where the perfect action may ever put that colour."""
        ...

    def draw(self, frames: Float, tempo: Float, execution: Execution) -> None:
        """Paints the action into frames [T, H, W, 3]; `tempo` [T] is the done share of its own
        way, 0 to 1, before `extent`."""
        ...

    def measure(self, evidence: Evidence, fixtures: tuple[Fixture, ...]) -> Measured:
        """Goal and process parts of a video, read off its evidence; all in 0..1."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a task is made of: fixtures in drawing order, and the action above them."""

    fixtures: tuple[Fixture, ...]
    action: Action
    falling: bool = False
    """Whether the tempo is that of a free fall."""

    @property
    def colours(self) -> tuple[str, ...]:
        """Of all that is in the scene, each once, the acting one last unless a fixture has it."""
        names = [fixture.colour for fixture in self.fixtures] + [self.action.colour]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One symbolic video task with its solution."""

    key: str
    """`<split>/<family>/<seed>`."""
    family: str
    category: Category
    split: Split
    seed: int
    prompt: str
    queries: tuple[Query, ...]
    """One goal query, then one to three process queries."""
    first_frame: NDArray[np.uint8]
    """[H, W, 3], RGB; equal to `truth[0]`."""
    truth: NDArray[np.uint8]
    """[T, H, W, 3], RGB."""
    cue: tuple[str, ...]
    """Words of the acting thing: its colour first, then its shape or another attribute."""
    scene: Scene = field(repr=False)
