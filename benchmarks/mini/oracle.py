"""The room left by the teacher: micro-fits of the miniature with the pixel error in its place.

    python -m benchmarks.mini.oracle --config mini --instances tasks.tar --out runs/oracle

The same reasoner, decoder, LoRA, noise and updates as the micro-fit, but the loss is a weighted
squared error to the true video, at full, half and quarter resolution. No method can know that
video: this bounds what a better teacher could bring, and is no rival. Files as `vlmteach.fit`
leaves them; resumable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train.autoencoder import attention
from vlmteach import models
from vlmteach.config import Config
from vlmteach.instances import decode, read_held_out, read_samples
from vlmteach.ledger import DONE, folder_name
from vlmteach.methods import MicroFitMethod, Resources
from vlmteach.mini import world
from vlmteach.options import read_config
from vlmteach.record import write_json

_SCALES = (1, 2, 4)
_WEIGHT = 20.0
"""Puts the loss of an unfinished video where the teacher's is, about 1."""


class PixelError:
    """Stands where a teacher stands; knows the true video of one task."""

    def __init__(self, facts: Any, device: torch.device) -> None:
        self.facts = facts
        self.device = device
        self.truth = torch.empty(0)
        self.weight = torch.empty(0)

    def know(self, task: world.Task) -> None:
        """Takes up a task's true video."""
        self.truth = torch.from_numpy(task.truth).permute(0, 3, 1, 2).float() / 255  # T C H W
        batch = self.truth.transpose(0, 1)[None] * 2 - 1  # [1, C, T, H, W] in [-1, 1]
        self.weight = attention(batch)[0].transpose(0, 1)

    def prepare(
        self, queries: Sequence[str], times: Sequence[float], height: int, width: int
    ) -> int:
        """The number of queries."""
        return len(queries)

    def log_p_yes(self, frames: Tensor, prepared: int) -> Tensor:
        """Minus the error, for every query: [K, 3, H, W] in [0, 1] -> [Q]."""
        error = torch.zeros(())
        for scale in _SCALES:
            missed = F.avg_pool2d(frames - self.truth, scale)
            error = error + (F.max_pool2d(self.weight, scale) * missed.square()).mean()
        return (-_WEIGHT * error).expand(prepared)

    def write(self, *_: Any) -> str:
        raise AssertionError("the queries are generic: nothing is written")


def run(config: Config, tar: str, out: Path) -> None:
    """Fits all instances that have no result yet, without an early stop."""
    config = replace(
        config,
        query=replace(config.query, source="generic"),
        fit=replace(config.fit, threshold=0.0),
        run=replace(config.run, base_video=False),
    )
    torch.set_num_threads(config.run.threads)
    loaded = models.load(config, torch.device("cpu"))
    oracle = PixelError(loaded.teacher.facts, torch.device("cpu"))
    method = MicroFitMethod(Resources(config, replace(loaded, teacher=oracle), {}))
    metas = {held.key: held.meta for held in read_held_out(tar)}
    for raw in read_samples(tar):
        folder = out / folder_name(raw.key)
        if (folder / DONE).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        oracle.know(world.task_of(metas[raw.key] or {}))
        outcome = method.solve(decode(raw), folder, tell=lambda _: None, logger=None)
        write_json(folder / DONE, asdict(outcome))


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.oracle", description=__doc__)
    cli.add_argument("--config", default="mini")
    cli.add_argument("--instances", required=True, help="tar of `vlmteach.mini.world export`")
    cli.add_argument("--out", type=Path, required=True)
    arguments = cli.parse_args()
    try:
        run(read_config(["--config", arguments.config]), arguments.instances, arguments.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
