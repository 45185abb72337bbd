"""Videos found by real micro-fits against the teacher as it stands, for the rules to label.

What a teacher wrongly likes shows only where someone climbs it. From half-way on, the training runs
short fits on training tasks every few steps, of the recipe's own reasoner, and keeps what they show
the teacher on the way and in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.mini.train.data import draws
from benchmarks.mini.train.teacher.data import Example, any_task
from benchmarks.mini.train.teacher.fits import Climber
from vlmteach.mini.world import answers, families, make

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LATE = 60
"""Of the fits that fooled the teacher, how many count as of late."""


class FoundVideos:
    """All videos that fits have found so far, in a folder: one file per round, named by the step.

    Args:
        folder: of the safetensors files.
        before: rounds of this step and later do not count: a training that goes on from an
            earlier state makes them again.
    """

    def __init__(self, folder: Path, *, before: int) -> None:
        self.folder = folder
        self._names = [family.name for family in families()]
        self.videos: list[NDArray[np.uint8]] = []
        self.places: list[tuple[int, int]] = []
        self.ends: list[int] = []
        self.fooled: list[int] = []
        for file in sorted(folder.glob("*.safetensors")):
            if int(file.stem) < before:
                self._take(load_file(file))

    def collect(
        self, climber: Climber, network: Any, step: int, *, seed: int, count: int
    ) -> dict[str, float]:
        """Runs fits against the teacher as it stands and keeps their videos.

        A third of the tasks are of families that fooled it of late, where there are such.

        Args:
            climber: of the recipe.
            network: the teacher's, of this step.
            step: of the teacher's training.
            seed: of the recipe.
            count: fits.

        Returns:
            `fooled`, the share of fits at whose end the teacher says yes to all and the rules do
            not; `gained`, by how much the rules' answers rose, in all.
        """
        rng = draws(seed, "found", step)
        tasks = [any_task(rng, "train") for _ in range(count)]
        late = self.fooled[-_LATE:]
        for index in range(count // 3 if late else 0):
            name = self._names[late[int(rng.integers(len(late)))]]
            tasks[index] = make(name, "train", int(rng.integers(2**40)))
        kept, told = climber.climb(network, tasks, rng)
        pixels = kept.permute(0, 1, 2, 4, 5, 3)  # [B, K, T, H, W, 3]
        videos = (pixels * 255).round().byte().contiguous()
        fooled, gained = [], []
        for task, way, yes in zip(tasks, videos.numpy(), told.exp() > 0.5, strict=True):
            first, last = (answers(task, _float(way[index])) for index in (0, -1))
            fooled.append(bool(yes.all()) and min(last) < 0.5)
            gained.append(sum(last) - sum(first))
        part = {
            "videos": videos,
            "places": torch.tensor([(self._names.index(t.family), t.seed) for t in tasks]),
            "fooled": torch.tensor(fooled),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{step:08}.safetensors"
        save_file(part, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
        self._take(part)
        return {"fooled": float(np.mean(fooled)), "gained": float(np.mean(gained))}

    def _take(self, part: dict[str, Tensor]) -> None:
        """Adds a round: fits' videos [B, K, T, H, W, 3], their tasks, and which fooled it."""
        for way, place, fooled in zip(
            part["videos"].numpy(), part["places"].tolist(), part["fooled"].tolist(), strict=True
        ):
            self.videos += list(way)
            self.places += [(place[0], place[1])] * len(way)
            self.ends.append(len(self.places) - 1)
            if fooled:
                self.fooled.append(place[0])

    def example(self, rng: np.random.Generator) -> Example:
        """One of them, half of them from the latest third; now and then on the way to another of
        the same fit, or to the truth."""
        index = self._index(rng)
        place, seed = self.places[index]
        task = make(self._names[place], "train", seed)
        video = _float(self.videos[index])
        mate, chance = index + int(rng.integers(-2, 3)), rng.random()
        weight = np.float32(rng.random())
        if chance < 0.25:
            video = video + weight * (_float(task.truth) - video)
        elif chance < 0.5 and 0 <= mate < len(self.places) and self.places[mate] == (place, seed):
            video = video + weight * (_float(self.videos[mate]) - video)
        return Example(task, video, answers(task, video), "found")

    def delivered(self, rng: np.random.Generator) -> Example:
        """The clip that one of the fits delivered, as it is."""
        index = self.ends[int(rng.integers(len(self.ends)))]
        place, seed = self.places[index]
        task = make(self._names[place], "train", seed)
        video = _float(self.videos[index])
        return Example(task, video, answers(task, video), "found")

    def _index(self, rng: np.random.Generator) -> int:
        total = len(self.places)
        return int(rng.integers(2 * total // 3 if rng.random() < 0.5 else 0, total))


def _float(video: NDArray[np.uint8]) -> NDArray[np.float32]:
    return video.astype(np.float32) / np.float32(255)
