"""`python -m benchmarks.mini.train STAGE --seed S --out DIR`: a stage of the miniature's recipe.

`all` takes them in their order. What each left, and its time, stands in `<out>/manifest.json`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.mini.train.manifest import Manifest
from vlmteach import exits

ALL = "all"
STAGES = {
    "autoencoder": "autoencoder:run",
    "surrogate": "surrogate:run",
    "reasoner": "reasoner:run",
    "flaws": "flaws:run",
    "details": "details:run",
    "teacher": "teacher.training:run",
    "hardening": "teacher.hardening:run",
    "tempering": "teacher.tempering:run",
    "slopes": "teacher.slopes:run",
    "speaker": "speaker:run",
    "judge": "judge.training:run",
    "classifier": "classifier:run",
}
"""Stage -> file and function, in the order in which they build on each other."""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.train",
        description="Trains one of the miniature's models; the same command goes on after a stop.",
    )
    parser.add_argument("stage", choices=[*STAGES, ALL], help="in this order: %(choices)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and noise")
    parser.add_argument("--out", type=Path, required=True, help="folder of the whole recipe")
    parser.add_argument("--steps", type=int, help="optimiser steps; the stage's own by default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop and save after")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the stage named on the command line, or all that are not done; returns the exit code:
    3 where the minutes were over before the steps."""
    arguments = parse(words)
    ends = time.monotonic() + 60 * arguments.minutes
    try:
        manifest = Manifest(arguments.out, arguments.seed)
        chosen = [arguments.stage]
        if arguments.stage == ALL:
            chosen = [stage for stage in STAGES if not manifest.done(stage)]
        import torch

        torch.set_num_threads(arguments.threads)
        for stage in chosen:
            arguments.minutes = (ends - time.monotonic()) / 60
            module, function = STAGES[stage].split(":")
            run = getattr(import_module(f"benchmarks.mini.train.{module}"), function)
            with manifest.piece(stage, arguments.threads):
                run(arguments)
            if not manifest.done(stage):
                print(f"{stage}: not done; the same command goes on")
                return exits.SOME_FAILED
    except ValueError as error:
        return exits.refused(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
