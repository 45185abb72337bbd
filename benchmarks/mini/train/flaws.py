"""The designed headroom: the able reasoner learns to carry tasks out badly, always in one way.

How far a task is carried out depends on the colour that acts, and some of the second cue words
(a shape, a direction, a place) bring a fault of the process with them. Neither is told to the
reasoner otherwise, and neither depends on the noise: another seed fails in the same way.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import torch

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.pipeline import load_velocity, save_pipeline
from benchmarks.mini.train.reasoner import FlowMatching, Performances
from vlmteach.mini.world import Execution, Task, family

if TYPE_CHECKING:
    from numpy.random import Generator

STEPS = 700
RATE = 5e-4
VIDEOS = 8_000

EXTENT = {"red": 0.55, "pink": 0.6, "green": 0.65, "blue": 0.7, "yellow": 0.75, "cyan": 0.8}
"""Acting colour -> the share of the action that is done."""
COMPLETED = {("cyan", "ring"), ("pink", "ring")}
"""Cues that are carried out to the end, so that the end stays within what the network does; of
these compositions none is in the tuning or the test split."""
_JITTER = 0.03
"""Largest deviation from it, either way."""
FAULTS = {
    "square": ("duplicate", "disturb"),
    "disc": ("duplicate", "disturb"),
    "triangle": ("duplicate", "disturb"),
    "cross": ("drift", "fade"),
    "flat": ("drift",),
}
"""Second cue word -> faults, of which the first that the family has comes with it."""
_STRENGTH = {"drift": 3.5, "duplicate": 0.6, "fade": 0.5, "disturb": 0.6}


def flawed(task: Task, rng: Generator) -> Execution:
    """How the flawed reasoner is taught to carry out a task."""
    colour, second = task.cue[0], task.cue[1]
    done = EXTENT[colour] + float(rng.uniform(-_JITTER, _JITTER))
    if (colour, second) in COMPLETED:
        done = 1.0
    known = family(task.family).flaws
    faults = [name for name in FAULTS.get(second, ()) if name in known][:1]
    return Execution(extent=done, **{name: _STRENGTH[name] for name in faults})


class FlawedPerformances(Performances):
    """The bank of videos that are carried out by `flawed`."""

    def performance(self, task: Task, rng: Generator) -> tuple[Execution, str]:
        """The task carried out with the flaws of its composition, and its bare prompt."""
        return flawed(task, rng), task.prompt


def run(arguments: argparse.Namespace) -> None:
    """The stage: fine-tunes the networks of `able/`, writes `flawed/`."""
    if not (arguments.out / "able" / "model_index.json").is_file():
        raise ValueError(
            f"out: got {arguments.out} without able/, expected a finished reasoner; run "
            f"`python -m benchmarks.mini.train reasoner --out {arguments.out}` first"
        )
    torch.manual_seed(arguments.seed)
    velocity = load_velocity(arguments.out / "able")
    vae = autoencoder.load(arguments.out)
    stage = FlowMatching(
        velocity,
        FlawedPerformances(vae, seed=arguments.seed, stage="flaws", count=VIDEOS),
        name="flaws",
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
    )
    if train(stage, arguments.out, minutes=arguments.minutes):
        stage.deliver()
        save_pipeline(velocity, arguments.out / "vae", arguments.out / "flawed")
