"""The clips that real micro-fits deliver, and some on their way: what the judge will be shown.

    python -m benchmarks.mini.train.judge.bank --out runs/recipe --seed 12

Fits against the recipe's finished teacher, on training tasks. The judge's stage fills the bank
itself where it lacks some; the command does so beside it. Round n is a function of the seed, n and
the rounds before it, whoever runs it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.mini.train.teacher.fits import Climber
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from benchmarks.mini.train.teacher.rows import Writer
from vlmteach import exits

ROUNDS = 38
FITS = 16
"""Fits in a round."""


def filled(recipe: Path, *, seed: int, rounds: int = ROUNDS, fits: int = FITS) -> FoundVideos:
    """The bank of a recipe, `found-judge/`, after running the rounds that it lacks.

    Args:
        recipe: folder with `teacher/`, `wan/`, `vae/` and the surrogate.
        seed: of the judge.
        rounds: of fits that it is to have.
        fits: in a round.

    Raises:
        ValueError: the recipe has no teacher.
    """
    teacher = recipe / "teacher"
    if not (teacher / "model.safetensors").is_file():
        raise ValueError(
            f"out: got {recipe} without teacher/, expected a finished teacher; run "
            f"`python -m benchmarks.mini.train slopes --out {recipe}` first"
        )
    folder = recipe / "found-judge"
    done = len(list(folder.glob("*.safetensors")))
    bank = FoundVideos(folder, before=rounds)
    if done < rounds:
        writer = Writer(teacher)
        climber, network = Climber(recipe, writer), writer.teacher.network
        for number in range(done, rounds):
            facts = bank.collect(climber, network, number, seed=seed, count=fits)
            told = "  ".join(f"{key} {value:.3g}" for key, value in facts.items())
            print(f"fits {(number + 1) * fits}/{rounds * fits}  {told}", flush=True)
    return bank


def main() -> int:
    """Fills the bank; returns the exit code."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.train.judge.bank")
    cli.add_argument("--out", type=Path, required=True, help="folder of the whole recipe")
    cli.add_argument("--seed", type=int, default=0, help="of the judge")
    arguments = cli.parse_args()
    torch.set_num_threads(1)
    try:
        filled(arguments.out, seed=arguments.seed)
    except ValueError as error:
        return exits.refused(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
