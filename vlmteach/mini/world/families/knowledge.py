"""Knowledge: what the world does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.actions.fill import Fill, sweep
from vlmteach.mini.world.actions.move import Move
from vlmteach.mini.world.draw import PAINTS, SHAPES, box, outline, shape
from vlmteach.mini.world.families.builder import (
    MOVE_FLAWS,
    RADIUS,
    Builder,
    Draft,
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

_FLOOR = 29.0
"""y of the floor's upper edge, in pixels."""
_MARKS = (8.0, 11.0, 14.0, 17.0, 20.0)
"""Heights of the mark over the tank's bottom, in pixels."""
_LIGHTS = (("red", "green", "yellow"), ("red", "blue", "pink"), ("green", "blue", "cyan"))
"""Two lights and what they make together."""


def _drop(rng: Generator, split: Split) -> Draft:
    colour, name = compose(rng, split, PAINTS, SHAPES)
    other, other_name = paint(rng, colour), choose(rng, SHAPES)
    left = bool(rng.integers(2))
    x, pillar = (8.5, 22.5) if left else (23.5, 9.5)
    x += 3 * (int(rng.integers(2)) if left else -int(rng.integers(2)))
    y = choose(rng, (5.5, 8.5, 11.5))
    top = choose(rng, (14.0, 18.0, 22.0))
    fixtures = (
        Fixture(box(0, _FLOOR, 32, 32), "black"),
        Fixture(box(pillar - 4.5, top, pillar + 4.5, _FLOOR), "black"),
        Fixture(shape(other_name, pillar, top - RADIUS, RADIUS), other),
    )
    path = np.array([(x, y), (x, _FLOOR - RADIUS)], np.float32)
    it = f"the {colour} shape"
    return Draft(
        "Drop the shape that floats.",
        end(f"is {it} on the floor"),
        (f"Does {it} stay whole?", f"Does {it} drop step by step?", "Does the rest stay the same?"),
        (colour, name),
        Scene(fixtures, Move(name, colour, RADIUS, path, sag=(1.0, 0.0)), falling=True),
    )


def _level(rng: Generator, split: Split) -> Draft:
    colour, mark = compose(rng, split, PAINTS, _MARKS)
    width, low = choose(rng, (11.0, 13.0, 15.0)), choose(rng, (2.0, 3.0, 4.0))
    tick_right = bool(rng.integers(2))
    left = 16 - width / 2 + 0.5 + jitter(rng, 3) - (2 if tick_right else -1)
    right, bottom = left + width, 29.0
    surface = bottom - mark
    tank = np.maximum.reduce(
        [
            box(left - 2, 4, left, 31),
            box(right, 4, right + 2, 31),
            box(left, bottom, right, 31),
        ]
    )
    region = box(left, surface, right, bottom - low)
    beside = right + 2 if tick_right else left - 6
    fixtures = (
        Fixture(tank, "black"),
        Fixture(box(beside, surface - 1, beside + 4, surface + 1), "black"),
        Fixture(box(left, bottom - low, right, bottom), colour, bystander=False),
    )
    fill = Fill(region, sweep(region, 0, -1), mark - low, colour, surface=(left, right))
    it = f"the {colour} water"
    return Draft(
        f"Fill the tank with {colour} water to the mark.",
        end(f"is {it} at the mark"),
        (f"Does {it} stay level?", f"Does {it} rise step by step?", "Does the rest stay the same?"),
        (colour, "water"),
        Scene(fixtures, fill),
    )


def _mix(rng: Generator, split: Split) -> Draft:
    (first, second, colour), name = compose(rng, split, _LIGHTS, SHAPES)
    if rng.integers(2):
        first, second = second, first
    left, right = 7.5 + jitter(rng, 2), 23.5 + jitter(rng, 3)
    x, y = 16.0 + jitter(rng, 7), 22.0 + jitter(rng, 1)
    inner = 5.0
    region = box(x - inner, y - inner, x + inner, y + inner)
    fixtures = (
        Fixture(shape(name, left, 6.5, RADIUS), first),
        Fixture(shape(name, right, 6.5, RADIUS), second),
        Fixture(outline("square", x, y, inner), "black", bystander=False),
    )
    fill = Fill(
        region,
        sweep(region, 0, 1),
        2 * inner,
        colour,
        spill=inward(x),
    )
    return Draft(
        "Mix the two lights in the frame.",
        end(f"is the frame full of {colour} light"),
        (
            "Does the light stay in the frame?",
            "Does the light spread step by step?",
            "Do the two lights stay the same?",
        ),
        (colour, name),
        Scene(fixtures, fill),
    )


_FILL_FLAWS = {"extent": ("goal",), "disturb": ("rest",), "late": ("steps",)}

BUILDERS = (
    Builder(
        Family(
            "drop",
            "knowledge",
            "The shape that nothing holds falls to the floor, ever faster.",
            ("whole", "steps", "rest"),
            {**MOVE_FLAWS, "disturb": ("rest",)},
        ),
        _drop,
    ),
    Builder(
        Family(
            "level",
            "knowledge",
            "Water rises in a tank, its surface level, up to a mark.",
            ("level", "steps", "rest"),
            {**_FILL_FLAWS, "drift": ("level",)},
        ),
        _level,
    ),
    Builder(
        Family(
            "mix",
            "knowledge",
            "A frame fills with the light that two lights make together.",
            ("only", "steps", "rest"),
            {**_FILL_FLAWS, "drift": ("only",)},
        ),
        _mix,
    ),
)
