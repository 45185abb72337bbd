"""What a family's builder is given and what it returns, and the choices that families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.draw import PAINTS, outline
from vlmteach.mini.world.scene import Scene
from vlmteach.mini.world.splits import compositions
from vlmteach.mini.world.types import SIZE, Family, Fixture, Split

if TYPE_CHECKING:
    from numpy.random import Generator

LATTICE = tuple(6.5 + 3 * i for i in range(7))
"""Where the centres of shapes may lie, on either axis: 6.5 to 24.5. A shape 7 pixels wide has
crisp edges there, and a frame around it fits into the image."""
RADIUS = 3.5
"""Of an ordinary shape, in pixels."""
FRAME = 4.5
"""Half of the free inside of a frame for an ordinary shape, in pixels."""

MOVE_FLAWS = {
    "extent": ("goal",),
    "duplicate": ("whole",),
    "fade": ("whole",),
    "shrink": ("whole",),
    "late": ("steps",),
}
"""Flaws of whatever moves, and what they lower. Beyond a half, fading and shrinking lower
everything: there is nothing left to be seen."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A task as its family words and builds it."""

    prompt: str
    goal: str
    process: tuple[str, ...]
    cue: tuple[str, ...]
    scene: Scene


@dataclass(frozen=True, slots=True)
class Builder:
    """A family and the function that makes its tasks."""

    family: Family
    draft: Callable[[Generator, Split], Draft]


def choose(rng: Generator, options: Sequence, but: Sequence = ()):
    """One of the options, those in `but` left out."""
    left = [option for option in options if option not in but]
    return left[int(rng.integers(len(left)))]


def compose(rng: Generator, split: Split, a: Sequence, b: Sequence) -> tuple:
    """One element of each, as a composition that belongs to the split."""
    pairs = compositions(split, len(a), len(b))
    i, j = pairs[int(rng.integers(len(pairs)))]
    return a[i], b[j]


def paint(rng: Generator, *but: str) -> str:
    """A colour, black and those named left out."""
    return choose(rng, PAINTS, but)


def inward(x: float) -> tuple[float, float]:
    """Unit vector from x to the middle of the image: where spilt paint can be seen."""
    return (1.0, 0.0) if x < SIZE / 2 else (-1.0, 0.0)


def jitter(rng: Generator, most: int) -> int:
    """A whole number of pixels from -most to most."""
    return int(rng.integers(-most, most + 1))


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the eight ways to flip and transpose the image."""

    flip_x: bool
    flip_y: bool
    transpose: bool

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the plain layout lies."""
        x, y = (SIZE - x if self.flip_x else x), (SIZE - y if self.flip_y else y)
        return (y, x) if self.transpose else (x, y)

    def way(self, x: float, y: float) -> tuple[float, float]:
        """Where a direction of the plain layout points."""
        x, y = (-x if self.flip_x else x), (-y if self.flip_y else y)
        return (y, x) if self.transpose else (x, y)

    def path(self, *points: tuple[float, float]) -> np.ndarray:
        """Points as `at` places them, float32 [N, 2]."""
        return np.array([self.at(*point) for point in points], np.float32)


def layout(rng: Generator) -> Layout:
    """A layout drawn at random: each of its three switches by a fair coin."""
    flips = rng.integers(2, size=3)
    return Layout(bool(flips[0]), bool(flips[1]), bool(flips[2]))


def frame(x: float, y: float, *, name: str = "square", inner: float = FRAME) -> Fixture:
    """A black frame that marks a place and is no bystander."""
    return Fixture(outline(name, x, y, inner), "black", bystander=False)
