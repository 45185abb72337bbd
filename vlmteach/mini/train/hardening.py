"""The teacher's second stage: the first one's second half once more, with more fits against it.

Whoever climbs a teacher finds what it wrongly likes. What the first stage's fits found, the teacher
has learnt; new fits still fooled it in three to five of ten. So here they come three times as
often, and the learning rate rises and falls once more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from vlmteach.mini.train import autoencoder, teacher
from vlmteach.mini.train import teacher_network as nets
from vlmteach.mini.train.loop import train
from vlmteach.mini.train.preset import save_preset
from vlmteach.mini.train.teacher_attack import Codec

STEPS = 2000
RATE = 1e-3
FITS = (25, 16)
"""Steps from one round of fits to the next, and fits in a round."""
MORE = ("mirror", "level") * 2
"""The families whose goals the first stage judges worst, on training tasks too."""
UNNAMED = ("level",)
"""Where the first stage has learnt the train split's pairs by heart."""


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from the teacher's averaged weights, rewrites `teacher/`, and writes
    `mini.yaml`, the recipe's preset.

    Raises:
        ValueError: the teacher has not been trained.
    """
    folder: Path = arguments.out / "teacher"
    path = arguments.out / "state" / "teacher.safetensors"
    if not path.is_file():
        raise ValueError(
            f"out: got {arguments.out} without state/teacher.safetensors, expected a trained "
            f"teacher; run `python -m vlmteach.mini.train teacher --out {arguments.out}` first"
        )
    state = load_file(path)
    network = nets.new_network(folder, arguments.seed)
    with torch.no_grad():
        for key, value in network.named_parameters():
            value.copy_(state[f"average.{key}"])
    stage = teacher.TeacherStage(
        folder,
        network,
        name="hardening",
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
        begun=int(state["done"]),
        batch=teacher.BATCH,
        attacked=teacher.ATTACKED,
        fits=FITS,
        more=MORE,
        unnamed=UNNAMED,
        codec=Codec(autoencoder.load(arguments.out)),
        recipe=arguments.out,
    )
    if train(stage, arguments.out, minutes=arguments.minutes, every=25):
        teacher.save_weights(stage.deliver().state_dict(), folder)
        print(f"the recipe is done; its preset is {save_preset(arguments.out)}")
