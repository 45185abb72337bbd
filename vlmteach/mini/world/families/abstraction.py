"""Abstraction: what a pattern asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.actions.fill import Fill, sweep
from vlmteach.mini.world.actions.move import Move
from vlmteach.mini.world.draw import PAINTS, SHAPES, box, shape
from vlmteach.mini.world.families.builder import (
    MOVE_FLAWS,
    Builder,
    Draft,
    choose,
    compose,
    layout,
    paint,
)
from vlmteach.mini.world.scene import Scene
from vlmteach.mini.world.types import SIZE, Family, Fixture, Float, Split
from vlmteach.mini.world.words import end

if TYPE_CHECKING:
    from numpy.random import Generator

_CELL = 6
"""Pixels of a mirror image's cell."""
_ROWS = tuple(1 + _CELL * i for i in range(5))


def _mirror(rng: Generator, split: Split) -> Draft:
    # The axis is upright; left of it are two columns of five cells.
    colour, row = compose(rng, split, PAINTS, _ROWS)
    other = paint(rng, colour)
    column = int(rng.integers(2))
    cells = [(c, r) for c in (0, 1) for r in _ROWS if (c, r) != (column, row)]
    picked = [cells[i] for i in rng.permutation(len(cells))[:4]]
    here, free = picked[:3], picked[3]
    to_left = bool(rng.integers(2))

    def cell(column: int, row: int, mirrored: bool) -> Float:
        left = 1 + _CELL * column
        left = 32 - left - _CELL if mirrored != to_left else left
        return box(left, row, left + _CELL, row + _CELL)

    region, second = cell(column, row, True), cell(*free, mirrored=True)
    fixtures = (
        Fixture(box(15, 0, 17, 32), "black"),
        Fixture(cell(column, row, False), colour),
        *(
            Fixture(cell(*at, mirrored=mirrored), other)
            for at in here
            for mirrored in (False, True)
        ),
    )
    fill = Fill(
        region,
        sweep(region, 1, 0),
        _CELL,
        colour,
        spill=(0.0, 1.0 if row < SIZE / 2 - _CELL / 2 else -1.0),
        second=second,
        second_order=sweep(second, 1, 0),
    )
    return Draft(
        "Complete the mirror image.",
        end("is the mirror image complete"),
        (
            "Does the rest stay white?",
            "Is the square drawn step by step?",
            "Do the other squares stay the same?",
        ),
        (colour, "square"),
        Scene(fixtures, fill),
    )


def _sequence(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    other, other_name = paint(rng, colour), choose(rng, SHAPES, (name,))
    place = layout(rng)
    swap = bool(rng.integers(2))
    near, far = place.at(28, 25), place.at(16, 25)
    start, other_at = (near, far) if swap else (far, near)

    def still(name: str, colour: str, at: tuple[float, float]) -> Fixture:
        return Fixture(shape(name, at[0], at[1], 3.0), colour)

    fixtures = (
        still(other_name, other, place.at(4, 5)),
        still(name, colour, place.at(12, 5)),
        still(other_name, other, place.at(20, 5)),
        still(other_name, other, other_at),
    )
    slot = place.at(28, 5)
    move = Move(name, colour, 3.0, np.array([start, slot], np.float32), sag=place.way(1, 0))
    it = f"the {colour} shape"
    return Draft(
        "Continue the row.",
        end(f"is {it} at the end of the row"),
        (
            f"Does {it} stay whole?",
            f"Does {it} move step by step?",
            "Do the other shapes stay the same?",
        ),
        (colour, name),
        Scene(fixtures, move),
    )


BUILDERS = (
    Builder(
        Family(
            "mirror",
            "abstraction",
            "The one cell that a mirror image lacks is drawn.",
            ("only", "steps", "rest"),
            {
                "extent": ("goal",),
                "drift": ("only", "rest"),
                "duplicate": ("only",),
                "disturb": ("rest",),
                "late": ("steps",),
            },
        ),
        _mirror,
    ),
    Builder(
        Family(
            "sequence",
            "abstraction",
            "The shape that continues A B A moves to the row's end.",
            ("whole", "steps", "rest"),
            {**MOVE_FLAWS, "disturb": ("rest",)},
        ),
        _sequence,
    ),
)
