"""Transformation: how things change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.actions.fill import Fill, sweep
from vlmteach.mini.world.actions.reshape import Grow, Turn
from vlmteach.mini.world.draw import PAINTS, SHAPES, shape
from vlmteach.mini.world.families.builder import (
    RADIUS,
    Builder,
    Draft,
    choose,
    compose,
    frame,
    inward,
    jitter,
    layout,
    paint,
)
from vlmteach.mini.world.scene import Scene
from vlmteach.mini.world.types import Family, Fixture, Split
from vlmteach.mini.world.words import end

if TYPE_CHECKING:
    from numpy.random import Generator

_REST = "Do the other shapes stay the same?"
_PLACES = ((16.0, 16.0), (10.0, 10.0), (22.0, 10.0), (10.0, 22.0), (22.0, 22.0))


def _paint(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    before = paint(rng, colour)
    place = layout(rng)
    (x, y), (ox, oy) = place.at(10.5, 10.5 + 3 * int(rng.integers(4))), place.at(23.5, 15.5)
    other = choose(rng, SHAPES, (name,))
    other_mask = shape(other, ox, oy, 4.5)
    region = shape(name, x, y, 5.5)
    fill = Fill(
        region,
        sweep(region, 1, 0),
        11,
        colour,
        before=before,
        spill=inward(x),
        second=other_mask,
        second_order=sweep(other_mask, 1, 0),
    )
    fixtures = (
        Fixture(region, before, bystander=False),
        Fixture(other_mask, paint(rng, colour, before)),
    )
    return Draft(
        f"Paint the {name} {colour}.",
        end(f"is the {name} {colour}"),
        (f"Does the {name} keep its shape?", "Does the paint spread step by step?", _REST),
        (colour, name),
        Scene(fixtures, fill),
    )


def _grow(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    place = layout(rng)
    x, y = place.at(11.5 + jitter(rng, 1), 11.5 + jitter(rng, 1))
    copy_at, other_at = place.at(26.5, 6.5), place.at(10.5, 26.5)
    grow = Grow(name, colour, x, y, RADIUS, 7.5, slide=place.way(0.8, 0.6), copy_at=copy_at)
    other = Fixture(shape(choose(rng, SHAPES), *other_at, RADIUS), paint(rng, colour))
    it = f"the {colour} {name}"
    return Draft(
        f"Grow {it} to the size of the frame.",
        end(f"is {it} the size of the frame"),
        (
            f"Does {it} stay whole?",
            f"Does {it} grow step by step?",
            f"Does {it} stay in its place?",
        ),
        (colour, name),
        Scene((frame(x, y, inner=8.5), other), grow),
    )


def _turn(rng: Generator, split: Split) -> Draft:
    colour, (x, y) = compose(rng, split, PAINTS, _PLACES)
    x, y = x + jitter(rng, 2), y + jitter(rng, 2)
    flat = bool(rng.integers(2))
    goal = "upright" if flat else "flat"
    slide = choose(rng, ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)))
    turn = Turn(colour, x, y, 8.0, 2.0, 0.0 if flat else float(np.pi / 2), slide)
    it = f"the {colour} bar"
    return Draft(
        f"Turn {it} {goal}.",
        end(f"is {it} {goal}"),
        (
            f"Does {it} stay whole?",
            f"Does {it} turn step by step?",
            f"Does {it} stay in its place?",
        ),
        (colour, goal),
        Scene((), turn),
    )


BUILDERS = (
    Builder(
        Family(
            "paint",
            "transformation",
            "A shape takes on another colour, from left to right.",
            ("shape", "steps", "rest"),
            {
                "extent": ("goal",),
                "drift": ("shape",),
                "duplicate": ("rest",),
                "disturb": ("rest",),
                "late": ("steps",),
            },
        ),
        _paint,
    ),
    Builder(
        Family(
            "grow",
            "transformation",
            "A shape grows in its place until it fills a frame.",
            ("whole", "steps", "place"),
            {"extent": ("goal",), "drift": ("place",), "duplicate": ("whole",), "late": ("steps",)},
        ),
        _grow,
    ),
    Builder(
        Family(
            "turn",
            "transformation",
            "A bar makes a quarter turn clockwise about its middle.",
            ("whole", "steps", "place"),
            {
                "extent": ("goal",),
                "drift": ("place",),
                "duplicate": ("whole",),
                "fade": ("whole",),
                "shrink": ("whole",),
                "late": ("steps",),
            },
        ),
        _turn,
    ),
)
