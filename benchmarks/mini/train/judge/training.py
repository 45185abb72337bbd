"""The judge: an InternVL that answers the world's queries as the rules do, and is never climbed.

What it is for is clips that a fit delivers. It sees other videos than the teacher, of its own seed
and mixed otherwise, and in the end half of them are from fits against the finished teacher
(`bank`). Nothing is ever run against the judge itself, so that what fools the teacher has no
reason to fool it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import torch
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.data import draws
from benchmarks.mini.train.judge import bank
from benchmarks.mini.train.judge import network as nets
from benchmarks.mini.train.judge.frame_losses import FrameLosses
from benchmarks.mini.train.judge.rows import JudgeWriter
from benchmarks.mini.train.judge.tokens import Width, save_folder
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.teacher.attack import Codec
from benchmarks.mini.train.teacher.data import Example, examples
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from benchmarks.mini.train.teacher.training import TeacherStage, save_weights

WIDTH = Width()
STEPS = 1800
BATCH = 16
RATE = 2e-3
SHARES = (0.12, 0.36, 0.24, 0.12, 0.04, 0.08, 0.04)
"""Of each of `KINDS`: more that stops short or is flawed, as the reasoner's clips do and are; less
that is blended, as only a fit's way is."""
MORE = ("mirror", "level", "grow")
UNNAMED = ("level",)
_DECODED = 0.15
"""Share of the steps after which some of the videos are as the autoencoder shows them."""
_FOUND = 0.4
"""Share of the steps after which half of the videos are the bank's."""
_ALL_FOUND = 0.7
"""Share of the steps at which the bank is full; it grows with them."""
_DELIVERED = 0.4
"""Share of the bank's that are a fit's delivered clip, as it is."""
KEPT = (8, 4, 2, 4 / 3)
"""The steps over these: when the averaged weights are kept, as weaker models."""


class JudgeStage(TeacherStage):
    """Trains the judge in `folder`."""

    writes = JudgeWriter
    dense = FrameLosses

    def __init__(self, folder: Path, network: Any, *, recipe: Path, **given: Any) -> None:
        """Args as those of `TeacherStage`, but that `recipe` is the folder with the finished
        teacher, whom the bank's fits climb."""
        super().__init__(folder, network, name="judge", attacked=0, **given)
        self.bank_recipe = recipe
        self._bank: FoundVideos | None = None
        self._rounds = 0

    def batch(self, step: int) -> list[Example]:
        """Examples of the train split, drawn from (seed, step); easy ones first."""
        easy = min(max(1 - (self.progress(step) - 0.1) / 0.25, 0.0), 1)
        return examples(
            self.seed, step, self.count, easy=easy, more=self.more, shares=SHARES, stage="judge"
        )

    def mixed(
        self,
        batch: list[Example],
        progress: float,
        draw: torch.Generator,
        facts: dict[str, Tensor | float],
    ) -> list[Example]:
        """The batch with its first half from the bank, and now and then its last quarter decoded:
        what fits deliver is decoded already."""
        half = self.count // 2
        if self.codec is not None and progress > _DECODED and self.done % 2 == 0:
            batch = self.decoded(batch, self.count // 4, draw)
        if progress >= _FOUND:
            batch = [*self._found_ones(half, progress), *batch[half:]]
        return batch

    def _found_ones(self, count: int, progress: float) -> list[Example]:
        """Some of the bank as it is to be by now; runs the fits that it lacks."""
        rounds = math.ceil(bank.ROUNDS * min(progress / _ALL_FOUND, 1))
        if self._bank is None or self._rounds < rounds:
            self._bank = bank.filled(self.bank_recipe, seed=self.seed, rounds=rounds)
            self._rounds = rounds
        videos, rng = self._bank, draws(self.seed, "judge/found", self.done)
        return [
            videos.delivered(rng) if rng.random() < _DELIVERED else videos.example(rng)
            for _ in range(count)
        ]

    def advance(self) -> None:
        """Counts a step; at some, keeps the averaged weights as a folder of their own."""
        super().advance()
        if self.done in [round(self.steps / part) for part in KEPT]:
            where = self.folder.parent / "judge-at" / str(self.done)
            copytree(self.folder, where, ignore=ignore_patterns("model*"), dirs_exist_ok=True)
            save_weights(self.average, where)


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains the judge, writes `judge/`, and `judge-at/<step>/` on the way.

    Wants the autoencoder from the start, and the finished teacher, the flawed reasoner and the
    surrogate at two fifths of the steps.
    """
    folder = arguments.out / "judge"
    save_folder(folder, WIDTH)
    network = nets.new_network(folder, arguments.seed)
    if not (folder / "model.safetensors").is_file():
        save_weights(network.state_dict(), folder)
    stage = JudgeStage(
        folder,
        network,
        recipe=arguments.out,
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
        batch=BATCH,
        more=MORE,
        unnamed=UNNAMED,
        codec=Codec(autoencoder.load(arguments.out)),
    )
    if train(stage, arguments.out, minutes=arguments.minutes, every=25):
        save_weights(stage.deliver().state_dict(), folder)
