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
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.preset import save_preset
from benchmarks.mini.train.teacher import network as nets
from benchmarks.mini.train.teacher import training as teacher
from benchmarks.mini.train.teacher.attack import Codec

STEPS = 2000
RATE = 1e-3
FITS = (25, 16)
"""Steps from one round of fits to the next, and fits in a round."""
MORE = ("mirror", "level") * 2
"""The families whose goals the first stage judges worst, on training tasks too."""
UNNAMED = ("level",)
"""Where the first stage has learnt the train split's pairs by heart."""


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from the first one's weights.

    Raises:
        ValueError: the teacher has not been trained.
    """
    go_on(arguments, "hardening", after=("teacher",), steps=STEPS, rate=RATE)


def go_on(
    arguments: argparse.Namespace,
    name: str,
    *,
    after: tuple[str, ...],
    steps: int,
    rate: float,
    stern: float = 1.0,
    lowest: float = teacher.LOWEST,
    slope: float = teacher.SLOPE,
    more: tuple[str, ...] = MORE,
) -> None:
    """A stage of the teacher with these fits: goes on from the averaged weights of the one before,
    rewrites `teacher/`, and writes `mini.yaml`, the recipe's preset.

    Args:
        arguments: of the command line.
        name: of the stage.
        after: all stages of the teacher before it, in their order.
        steps: unless the command line says otherwise.
        rate: learning rate at its highest.
        stern, lowest, slope, more: as in `TeacherStage`.

    Raises:
        ValueError: a stage before it is not done.
    """
    folder: Path = arguments.out / "teacher"
    states = [_finished(arguments.out, stage_before) for stage_before in after]
    network = nets.new_network(folder, arguments.seed)
    with torch.no_grad():
        for key, value in network.named_parameters():
            value.copy_(states[-1][f"average.{key}"])
    stage = teacher.TeacherStage(
        folder,
        network,
        name=name,
        seed=arguments.seed,
        steps=arguments.steps or steps,
        rate=rate,
        begun=sum(int(state["done"]) for state in states),
        batch=teacher.BATCH,
        attacked=teacher.ATTACKED,
        fits=FITS,
        more=more,
        unnamed=UNNAMED,
        stern=stern,
        lowest=lowest,
        slope=slope,
        codec=Codec(autoencoder.load(arguments.out)),
        recipe=arguments.out,
    )
    if train(stage, arguments.out, minutes=arguments.minutes, every=25):
        teacher.save_weights(stage.deliver().state_dict(), folder)
        print(f"{name} is done; the recipe's preset is {save_preset(arguments.out)}")


def _finished(out: Path, name: str) -> dict[str, Tensor]:
    """The last state of a stage."""
    path = out / "state" / f"{name}.safetensors"
    state = load_file(path) if path.is_file() else {}
    done, steps = (int(state.get(key, 0)) for key in ("done", "steps"))
    if not state or done < steps:
        got = f"{done} of its {steps} steps" if state else f"no state/{path.name}"
        raise ValueError(
            f"out: got {out} with {got}, expected the stage {name!r} to be done; "
            f"run `python -m benchmarks.mini.train {name} --out {out}` first"
        )
    return state
