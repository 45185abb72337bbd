"""Perception: which thing is meant, by how it looks."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.actions.fill import Fill, around, sweep
from vlmteach.mini.world.actions.move import Move
from vlmteach.mini.world.draw import PAINTS, SHAPES, outline, shape
from vlmteach.mini.world.families.builder import (
    MOVE_FLAWS,
    RADIUS,
    Builder,
    Draft,
    Layout,
    choose,
    compose,
    inward,
    jitter,
    paint,
)
from vlmteach.mini.world.scene import Scene
from vlmteach.mini.world.types import Family, Fixture, Split
from vlmteach.mini.world.words import end

if TYPE_CHECKING:
    from numpy.random import Generator

_CORNERS = ((8.5, 8.5), (23.5, 8.5), (8.5, 23.5), (23.5, 23.5))
_FRAMES = {"square": (3.5, 4.5, 2.0), "disc": (3.5, 4.5, 2.0), "diamond": (4.5, 5.5, 2.5)}
"""Radius of the mover, and the free inside and the thickness of its frame, in pixels."""
_LAYOUTS = tuple(Layout(*flips) for flips in product((False, True), repeat=3))


def _odd(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    by_colour = bool(rng.integers(2))
    common = (paint(rng, colour), name) if by_colour else (colour, choose(rng, SHAPES, (name,)))
    order = rng.permutation(4)
    (x, y), *others = (_CORNERS[i] for i in order)
    fixtures = (
        Fixture(shape(name, x, y, RADIUS), colour),
        *(Fixture(shape(common[1], *at, radius=RADIUS), common[0]) for at in others),
    )
    region, second = outline("square", x, y, 4.5), outline("square", *others[0], inner=4.5)
    fill = Fill(region, around(x, y), 44, "black", second=second, second_order=around(*others[0]))
    return Draft(
        "Draw a frame around the odd one.",
        end("is the odd one in a frame"),
        (
            "Is only one shape in a frame?",
            "Is the frame drawn step by step?",
            "Do the shapes stay the same?",
        ),
        (colour, name),
        Scene(fixtures, fill),
    )


def _largest(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    before = paint(rng, colour)
    order = rng.permutation(4)[:3]
    large, *small = (_CORNERS[i] for i in order)
    region = shape(name, *large, radius=6.5)
    masks = [shape(name, *at, radius=radius) for at, radius in zip(small, (4.5, 3.5), strict=True)]
    fill = Fill(
        region,
        sweep(region, 1, 0),
        13,
        colour,
        before=before,
        spill=inward(large[0]),
        second=masks[0],
        second_order=sweep(masks[0], 1, 0),
    )
    fixtures = (
        Fixture(region, before, bystander=False),
        *(Fixture(mask, before) for mask in masks),
    )
    return Draft(
        f"Paint the largest {name} {colour}.",
        end(f"is the largest {name} {colour}"),
        (
            f"Does the largest {name} keep its shape?",
            "Does the paint spread step by step?",
            "Do the other shapes stay the same?",
        ),
        (colour, name),
        Scene(fixtures, fill),
    )


def _match(rng: Generator, split: Split) -> Draft:
    colour, place = compose(rng, split, PAINTS, _LAYOUTS)
    name = choose(rng, tuple(_FRAMES))
    other = choose(rng, tuple(_FRAMES), (name,))
    at, other_at, start = (
        place.at(8.5, 8.5),
        place.at(24.5, 8.5),
        place.at(16.5 + jitter(rng, 4), 25.5),
    )
    radius = _FRAMES[name][0]

    def mark(name: str, x: float, y: float) -> Fixture:
        _, inner, thickness = _FRAMES[name]
        return Fixture(outline(name, x, y, inner, thickness), "black", bystander=False)

    marks = (mark(name, *at), mark(other, *other_at))
    side = 1 if rng.integers(2) else -1
    dx, dy = at[0] - start[0], at[1] - start[1]
    length = (dx**2 + dy**2) ** 0.5
    move = Move(
        name,
        colour,
        radius,
        np.array([start, at], np.float32),
        sag=(-side * dy / length, side * dx / length),
        target=marks[0],
    )
    it = f"the {colour} {name}"
    return Draft(
        f"Move {it} straight to the frame of the same shape.",
        end(f"is {it} in the frame of the same shape"),
        (
            f"Does {it} stay whole?",
            f"Does {it} move step by step?",
            f"Does {it} stay on the straight line?",
        ),
        (colour, name),
        Scene(marks, move),
    )


_FILL_FLAWS = {"extent": ("goal",), "disturb": ("rest",), "late": ("steps",)}

BUILDERS = (
    Builder(
        Family(
            "odd",
            "perception",
            "A black frame is drawn around the shape unlike the others.",
            ("only", "steps", "rest"),
            {**_FILL_FLAWS, "duplicate": ("only",)},
        ),
        _odd,
    ),
    Builder(
        Family(
            "largest",
            "perception",
            "The largest of three shapes takes on another colour.",
            ("shape", "steps", "rest"),
            {**_FILL_FLAWS, "drift": ("shape",), "duplicate": ("rest",)},
        ),
        _largest,
    ),
    Builder(
        Family(
            "match",
            "perception",
            "A shape moves straight into the frame of its own shape.",
            ("whole", "steps", "line"),
            {**MOVE_FLAWS, "drift": ("line",)},
        ),
        _match,
    ),
)
