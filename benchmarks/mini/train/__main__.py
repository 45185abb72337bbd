"""`python -m benchmarks.mini.train STAGE --seed S --out DIR`: a stage of the miniature's recipe."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

STAGES = {
    "autoencoder": "autoencoder:run",
    "surrogate": "surrogate:run",
    "reasoner": "reasoner:run",
    "flaws": "flaws:run",
    "teacher": "teacher.training:run",
    "hardening": "teacher.hardening:run",
    "tempering": "teacher.tempering:run",
}
"""Stage -> file and function, in the order in which they build on each other."""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.train",
        description="Trains one of the miniature's models; the same command goes on after a stop.",
    )
    parser.add_argument("stage", choices=STAGES, help="in this order: %(choices)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and noise")
    parser.add_argument("--out", type=Path, required=True, help="folder of the whole recipe")
    parser.add_argument("--steps", type=int, help="optimiser steps; the stage's own by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop and save after")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the stage named on the command line."""
    arguments = parse(words)
    import torch

    torch.set_num_threads(arguments.threads)
    module, function = STAGES[arguments.stage].split(":")
    getattr(import_module(f"benchmarks.mini.train.{module}"), function)(arguments)


if __name__ == "__main__":
    main()
