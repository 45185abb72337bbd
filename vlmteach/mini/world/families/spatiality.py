"""Spatiality: where things go, and which way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.actions.move import Move
from vlmteach.mini.world.draw import PAINTS, SHAPES, box
from vlmteach.mini.world.families.builder import (
    LATTICE,
    MOVE_FLAWS,
    RADIUS,
    Builder,
    Draft,
    choose,
    compose,
    frame,
    layout,
)
from vlmteach.mini.world.scene import Scene
from vlmteach.mini.world.types import Family, Fixture, Split
from vlmteach.mini.world.words import end

if TYPE_CHECKING:
    from numpy.random import Generator

_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))


def _reach(rng: Generator, split: Split) -> Draft:
    colour, (dx, dy) = compose(rng, split, PAINTS, _DIRECTIONS)
    name = choose(rng, SHAPES)
    far = 12 if dx and dy else choose(rng, (12, 15, 18))
    free = [
        (x, y)
        for x in LATTICE
        for y in LATTICE
        if LATTICE[0] <= x + far * dx <= LATTICE[-1] and LATTICE[0] <= y + far * dy <= LATTICE[-1]
    ]
    x, y = choose(rng, free)
    target = (x + far * dx, y + far * dy)
    side = 1 if rng.integers(2) else -1
    length = float(np.hypot(dx, dy))
    mark = frame(*target)
    move = Move(
        name,
        colour,
        RADIUS,
        np.array([(x, y), target], np.float32),
        sag=(-side * dy / length, side * dx / length),
        target=mark,
    )
    it = f"the {colour} {name}"
    return Draft(
        f"Move {it} straight to the frame.",
        end(f"is {it} in the frame"),
        (
            f"Does {it} stay whole?",
            f"Does {it} move step by step?",
            f"Does {it} stay on the straight line?",
        ),
        (colour, name),
        Scene((mark,), move),
    )


def _detour(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    place = layout(rng)
    y = choose(rng, (7.5, 9.5, 11.5, 13.5))
    tip = y + choose(rng, (2.5, 4.5))
    below = tip + RADIUS + 1.5
    left, top = place.at(13, 0)
    right, bottom = place.at(16, tip)
    # Between a flipped pair of corners, the box has its sides in order again.
    edges = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    wall = Fixture(box(*edges), "black", bystander=False)
    mark = frame(*place.at(24.5, y))
    move = Move(
        name,
        colour,
        RADIUS,
        place.path((6.5, y), (8.5, below), (20.5, below), (24.5, y)),
        sag=place.way(0, -1),
        wall=wall,
        wall_box=edges,
        target=mark,
    )
    it = f"the {colour} {name}"
    return Draft(
        f"Move {it} around the wall to the frame.",
        end(f"is {it} in the frame"),
        (f"Does {it} stay whole?", f"Does {it} move step by step?", f"Does {it} avoid the wall?"),
        (colour, name),
        Scene((wall, mark), move),
    )


BUILDERS = (
    Builder(
        Family(
            "reach",
            "spatiality",
            "A shape moves straight into a black frame.",
            ("whole", "steps", "line"),
            {**MOVE_FLAWS, "drift": ("line",)},
        ),
        _reach,
    ),
    Builder(
        Family(
            "detour",
            "spatiality",
            "A shape moves around the free end of a wall into a frame.",
            ("whole", "steps", "wall"),
            {**MOVE_FLAWS, "drift": ("wall",)},
        ),
        _detour,
    ),
)
