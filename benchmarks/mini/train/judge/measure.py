"""How well a judge agrees with the rules, on tuning tasks: on drawn clips, and on delivered ones.

    python -m benchmarks.mini.train.judge.measure runs/recipe/judge builtin:mini/teacher \\
        --run runs/mini --n 260

Models of any family are told apart by their checkpoints. `runs/mini` is a folder that `python -m
benchmarks.mini --split tuning` has left: each setting's delivered clips are read from their files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mini.train.teacher.data import example
from benchmarks.mini.train.teacher.measure import rounded
from benchmarks.viewer import Viewer
from vlmteach.instances import read_held_out
from vlmteach.ledger import folder_name
from vlmteach.mini import world
from vlmteach.mini.rule_scores import kept_scores
from vlmteach.options import read_config
from vlmteach.report.index import read_index
from vlmteach.rows import CLIP
from vlmteach.teachers.loading import beside
from vlmteach.video import read_video

YES = 0.5


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of a task, and what the rules say of it."""

    task: world.Task
    video: torch.Tensor
    """uint8 [T, H, W, 3]."""
    strict: bool


def drawn(n: int, seed: int) -> Iterator[Clip]:
    """Clips as a teacher is trained on, of tuning tasks: done well or badly, mixed and spoilt."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        one = example(rng, "tuning")
        video = torch.from_numpy((one.video * 255).round().astype(np.uint8))
        yield Clip(one.task, video, bool(world.score(one.task, video.numpy()).strict))


def delivered(run: Path) -> Iterator[tuple[str, Clip]]:
    """(setting, clip) of each clip that a run of `benchmarks.mini` delivered.

    Raises:
        ValueError: a run on another split than tuning.
    """
    for tar in sorted(run.glob("*.tar")):
        for held in read_held_out(str(tar)):
            assert held.meta is not None
            task = world.task_of(held.meta)
            if task.split != "tuning":
                raise ValueError(
                    f"--run: got {run} with tasks of the split {task.split}, expected tuning: "
                    "a judge is chosen by this; run `python -m benchmarks.mini --split tuning`"
                )
            for row in read_index(run):
                folder = run / row["folder"] / folder_name(held.key)
                if (folder / CLIP).is_file():
                    strict = bool(kept_scores(task, folder)[0]["strict"])
                    yield row["setting"], Clip(task, read_video(folder / CLIP)[0], strict)


def agreement(strict: np.ndarray, p_yes: np.ndarray) -> dict[str, Any]:
    """What a model's least P("Yes") of each clip, [n], is worth beside the rules' verdicts, [n].

    `false_yes` and `false_no` are shares of all clips; `auc` is how often it ranks a strict success
    above a failure, None where there are not both.
    """
    yes = p_yes > YES
    good, bad = p_yes[strict], p_yes[~strict]
    above = (good[:, None] > bad).mean() if len(good) and len(bad) else None
    return {
        "n": len(strict),
        "strict": float(strict.mean()),
        "agrees": float((yes == strict).mean()),
        "false_yes": float((yes & ~strict).mean()),
        "false_no": float((~yes & strict).mean()),
        "auc": None if above is None else float(above),
    }


def by_family(clips: list[Clip], p_yes: np.ndarray) -> dict[str, Any]:
    """`agreement` over all, and the share of each family's clips that the model agrees on."""
    strict = np.array([clip.strict for clip in clips])
    families = np.array([clip.task.family for clip in clips])
    agrees = (p_yes > YES) == strict
    return {
        **agreement(strict, p_yes),
        "families": {str(name): float(agrees[families == name].mean()) for name in set(families)},
    }


def main() -> None:
    """Measures each model on the same clips, and prints it as JSON."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.train.judge.measure")
    cli.add_argument("models", nargs="+", help="folders or builtin:NAME")
    cli.add_argument("--n", type=int, default=260, help="drawn clips")
    cli.add_argument("--seed", type=int, default=0, help="of the drawn clips")
    cli.add_argument("--run", type=Path, action="append", default=[], help="delivered clips")
    options = cli.parse_args()
    torch.set_num_threads(1)
    groups = {"drawn": list(drawn(options.n, options.seed))}
    for run in options.run:
        for setting, clip in delivered(run):
            groups.setdefault(setting, []).append(clip)
    teacher = read_config(["--config", "mini"]).teacher
    fps = float(world.FPS)
    found = {}
    for model in options.models:
        viewer = Viewer(beside(teacher, model), torch.device("cpu"))
        found[model] = {
            name: by_family(
                clips,
                np.array([min(viewer.p_yes(c.task.queries, c.video, fps)) for c in clips]),
            )
            for name, clips in groups.items()
        }
    print(json.dumps(rounded(found), indent=1))


if __name__ == "__main__":
    main()
