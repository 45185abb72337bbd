"""What the world's rooms hand to each other: kinds of tasks, how one is carried out, the score."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
"""float32 throughout; numpy's types do not follow that through sums."""

SIZE = 32
"""H and W, in pixels."""
FRAMES = 9
"""T: three latent frames at a temporal stride of four."""
FPS = 8.0

Split = Literal["train", "tuning", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Category = Literal["abstraction", "knowledge", "perception", "spatiality", "transformation"]
CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a task is carried out. The defaults carry it out perfectly.

    Which flaws mean something is the family's business: `Family.flaws`.
    """

    extent: float = 1.0
    """Share of the action that is done, 0 to 1: the way gone, the area painted, the angle turned.
    The process stays right; only the end is not reached."""
    drift: float = 0.0
    """Pixels off the way, 0 to 8: a bow beside the line, a cut into the wall, paint spilt beyond
    the edge, a tilted water surface, a bow out of place."""
    duplicate: float = 0.0
    """Opacity, 0 to 1, of a copy left behind, or of a second place that is painted too."""
    fade: float = 0.0
    """Share of its colour that the acting object has lost by the end, 0 to 1."""
    shrink: float = 0.0
    """Share of its radius that the acting object has lost by the end, 0 to 1."""
    disturb: float = 0.0
    """Share of their colour that the bystanders have lost by the end, 0 to 1."""
    late: float = 0.0
    """0: even tempo; 1: nothing until the last frame, which jumps to the end."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, top = getattr(self, item.name), 8.0 if item.name == "drift" else 1.0
            if not (math.isfinite(value) and 0 <= value <= top):
                raise ValueError(f"{item.name}: got {value}, expected 0 to {top:g}; correct it")


PERFECT = Execution()
FLAWS = tuple(item.name for item in fields(Execution))


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A kind of task."""

    name: str
    category: Category
    summary: str
    parts: tuple[str, ...]
    """What its process queries ask after, in their order; the names of `Measured.parts`."""
    flaws: dict[str, tuple[str, ...]]
    """Flaw -> what it lowers: "goal" or names of `parts`. Other flaws are refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Fixture:
    """A thing that stays as it is."""

    mask: Float
    """Coverage [H, W] in 0..1."""
    colour: str
    bystander: bool = True
    """Whether the query after the rest of the scene means it, and `disturb` fades it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an action reads off a video: the goal score and the named process parts, all 0..1."""

    goal: float
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Score:
    """What the rules say of a video; all in 0..1."""

    goal: float
    """How far the final frame is the right one."""
    process: float
    """Geometric mean of `process_parts`: one part that fails wholly fails the process."""
    overall: float
    """Mean of goal and process."""
    strict: bool
    """Whether the goal and every part are above their thresholds."""
    process_parts: tuple[float, ...]
    """One per process query, in their order."""


def checked_meta(meta: dict[str, Any]) -> tuple[str, Split, int]:
    """(family, split, seed) out of a sample's metadata.

    Raises:
        ValueError: one of them is missing or of another type.
    """
    family, split, seed = (meta.get(name) for name in ("family", "split", "seed"))
    if isinstance(family, str) and split in SPLITS and type(seed) is int:
        return family, split, seed
    raise ValueError(
        f"meta: got family {family!r}, split {split!r}, seed {seed!r}, expected a family's name, "
        f"one of {SPLITS} and an integer; only samples that `export` wrote can be rebuilt"
    )
