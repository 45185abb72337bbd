"""Videos to train on, rendered as they are needed from the train split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vlmteach.mini.world import PERFECT, Execution, Split, Task, families, family, make, perform
from vlmteach.seeding import derive_seed

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor

_TOPS = {"drift": 6.0, "late": 0.8}
"""Where a flaw ends that is not drawn up to 1."""


def draws(seed: int, stage: str, step: int) -> Generator:
    """The source of chance of one training batch."""
    return np.random.default_rng(derive_seed(seed, f"{stage}/{step}", "data"))


def any_task(rng: Generator, split: Split = "train") -> Task:
    """A task of any family; what is trained on is of the train split."""
    names = families()
    return make(names[int(rng.integers(len(names)))].name, split, int(rng.integers(2**40)))


def any_execution(rng: Generator, task: Task) -> Execution:
    """Perfect, or with one to three of the family's flaws, of any strength."""
    known = list(family(task.family).flaws)
    if rng.random() < 0.4:
        return PERFECT
    chosen = rng.permutation(known)[: int(rng.integers(1, 4))]
    return Execution(**{name: float(rng.random()) * _TOPS.get(name, 1.0) for name in chosen})


def pixels(videos: list[NDArray[np.uint8]]) -> Tensor:
    """uint8 videos [T, H, W, 3] -> float [B, 3, T, H, W] in [-1, 1], as the VAE takes them."""
    stacked = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3)
    return (stacked.float() / 127.5 - 1).contiguous()


def any_videos(seed: int, stage: str, step: int, count: int) -> Tensor:
    """A batch of performed tasks, [count, 3, T, H, W] in [-1, 1]."""
    rng = draws(seed, stage, step)
    videos = []
    for _ in range(count):
        task = any_task(rng)
        videos.append(perform(task, any_execution(rng, task)))
    return pixels(videos)
