"""The teacher's third stage: sterner labels, for climbing makes any teacher's answers too kind.

Of the clips that end a fit with "Yes" against the rules, most fall just short: the goal is at 0.85,
the teacher says 0.9. So the rules' answers are raised to a power: they keep their order and their
ends, but are one half at a goal of 0.95, not 0.9 (`answers`), and what is nearly done is a "No".
"""

from __future__ import annotations

import argparse

from benchmarks.mini.train.teacher import hardening

STEPS = 600
RATE = 6e-4
STERN = 2.0


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from the hardening's weights.

    Raises:
        ValueError: the teacher has not been hardened.
    """
    before = ("teacher", "hardening")
    hardening.go_on(arguments, "tempering", after=before, steps=STEPS, rate=RATE, stern=STERN)
