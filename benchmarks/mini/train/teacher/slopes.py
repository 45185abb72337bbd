"""The teacher's last stage: an answer that rises from the very start of the way, not near its end.

A fit climbs log P("Yes"). Tempered labels are a 13th power of the goal's score, and their log was
cut off at -5, which the goal reaches at a score of 0.68: below it the teacher learnt one answer for
all, and a fit that began there found no way up. So here the log may fall to what the label is at
a score of 0.37.
"""

from __future__ import annotations

import argparse

from benchmarks.mini.train.teacher import hardening, tempering

STEPS = 1600
RATE = 8e-4
LOWEST = -13.0
SLOPE = 0.2
MORE = ("mirror", "level", "sequence", "detour", "match", "reach")
"""Those whose goals are judged worst, and those whose answers were the flattest."""


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from the tempering's weights.

    Raises:
        ValueError: the teacher has not been tempered.
    """
    hardening.go_on(
        arguments,
        "slopes",
        after=("teacher", "hardening", "tempering"),
        steps=STEPS,
        rate=RATE,
        stern=tempering.STERN,
        lowest=LOWEST,
        slope=SLOPE,
        more=MORE,
    )
