"""How many labelled clips the classifier needs: it is trained on fewer, and asked about new tasks.

    python -m benchmarks.mini.train.clips_needed 1000 4000 --recipe runs/recipe --out runs/few

The same steps for each number, so that fewer clips are seen more often. Asked are drawn clips of
the tuning split, half of them as the autoencoder shows them. `<out>/<number>` keeps each, for
`python -m benchmarks.mini --classifier` to ask about delivered clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.mini.classifier import ClipClassifier, load, save
from benchmarks.mini.train import classifier as stage
from benchmarks.mini.train.loop import train
from benchmarks.table.text import grid
from vlmteach import exits

_BATCH = 64


@torch.no_grad()
def on_new_tasks(classifier: ClipClassifier, bank: stage.LabelledClips) -> dict[str, float]:
    """Shares of a bank: answers that are right; clips on which a yes to all queries agrees with the
    labels; clips to which only the classifier says yes to all, and only the labels do."""
    logits, wanted = [], []
    for at in range(0, bank.count, _BATCH):
        clips = [bank[number] for number in range(at, min(at + _BATCH, bank.count))]
        logits.append(stage.answered(classifier, clips))
        wanted += [item.yes for item in clips]
    told, right = torch.cat(logits) > 0, torch.tensor(wanted)
    says, passes = told.all(1), right.all(1)
    shares = {
        "answers": told == right,
        "accuracy": says == passes,
        "false yes": says & ~passes,
        "false no": ~says & passes,
    }
    return {name: flags.float().mean().item() for name, flags in shares.items()}


def main() -> int:
    """Trains and prints; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mini.train.clips_needed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=int, nargs="+", help="numbers of labelled clips")
    parser.add_argument("--recipe", type=Path, required=True, help="folder of the whole recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the recipe")
    parser.add_argument("--steps", type=int, default=stage.STEPS, help="of each training")
    parser.add_argument("--asked", type=int, default=1300, help="clips of the tuning split")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = []
    try:
        for count in arguments.clips:
            place = arguments.out / str(count)
            bank = stage.bank_of(arguments.recipe, seed=arguments.seed, count=count)
            training = stage.Classifying(bank, seed=arguments.seed, steps=arguments.steps)
            train(training, place)
            classifier = training.deliver()
            assert isinstance(classifier, ClipClassifier)
            save(classifier, place / stage.WEIGHTS)
            asked = stage.LabelledClips(
                seed=arguments.seed, count=arguments.asked, codec=bank.codec, split="tuning"
            )
            told = on_new_tasks(load(place / stage.WEIGHTS), asked)
            lines.append([str(count), *(f"{share:.3f}" for share in told.values())])
            print(grid(["clips", *told], lines), flush=True)
    except ValueError as error:
        return exits.refused(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
