"""The judge's second stage: the first one's last part once more, with sterner labels.

After the first stage the judge is too kind: of what it is wrong about, most is a clip that falls
short and is taken for done. As in the teacher's tempering the rules' answers are raised to a power,
so that what is nearly done is a "No"; the learning rate rises and falls once more.
"""

from __future__ import annotations

import argparse

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.judge import network as nets
from benchmarks.mini.train.judge import training as judge
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.teacher.attack import Codec
from benchmarks.mini.train.teacher.hardening import finished, take_up
from benchmarks.mini.train.teacher.training import save_weights

STEPS = 400
RATE = 1e-3
STERN = 2.0
MORE = ("mirror", "level", "grow", "largest", "paint")
"""The families that the first stage judges worst, on tuning tasks."""


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from the averaged weights of the first, rewrites `judge/`.

    Raises:
        ValueError: the first stage is not done.
    """
    folder = arguments.out / "judge"
    state = finished(arguments.out, "judge")
    network = nets.new_network(folder, arguments.seed)
    take_up(network, state)
    stage = judge.JudgeStage(
        folder,
        network,
        name="seasoning",
        recipe=arguments.out,
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
        begun=int(state["done"]),
        batch=judge.BATCH,
        more=MORE,
        unnamed=judge.UNNAMED,
        stern=STERN,
        codec=Codec(autoencoder.load(arguments.out)),
    )
    if train(stage, arguments.out, minutes=arguments.minutes, every=25):
        save_weights(stage.deliver().state_dict(), folder)
