"""Three splits that share neither seeds nor compositions.

**By composition.** Every family names two attributes of its tasks, a colour (or a pair of colours)
a and a second attribute b (a shape, a direction, a place, a level). With both counted from 0,

    (a + b) mod 5 = 0 is tuning,  1 is test,  2, 3, 4 are train.

So no (a, b) of one split is ever seen in another, while every a occurs in all three splits: what
is new in tuning and test is a combination of known parts, never a part.

**By seed.** The generator of a task is seeded with a hash of (seed, split, family): the same seed
in two splits or families gives unrelated numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.types import SPLITS, Split
from vlmteach.seeding import derive_seed

if TYPE_CHECKING:
    from numpy.random import Generator

_MODULUS = 5
_REMAINDERS: dict[Split, tuple[int, ...]] = {"train": (2, 3, 4), "tuning": (0,), "test": (1,)}


def split_of(a: int, b: int) -> Split:
    """The split that owns a composition."""
    remainder = (a + b) % _MODULUS
    return next(split for split in SPLITS if remainder in _REMAINDERS[split])


def compositions(split: Split, a_count: int, b_count: int) -> list[tuple[int, int]]:
    """The compositions of a split: every (a, b) that it owns, a < `a_count` and b < `b_count`."""
    pairs = ((a, b) for a in range(a_count) for b in range(b_count))
    return [(a, b) for a, b in pairs if split_of(a, b) == split]


def task_generator(family: str, split: Split, seed: int) -> Generator:
    """The only source of chance of one task."""
    return np.random.default_rng(derive_seed(seed, f"{split}/{family}", "world"))
