"""The speaker: the teacher that goes on to learn what the rival methods ask a teacher to write.

Prompts with details, analyses of clips, advice, picks, plans and verdicts, each out of the method's
own request. It goes on writing queries, and answers yes/no questions as the teacher does.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import draws
from benchmarks.mini.train.loop import Stage, train
from benchmarks.mini.train.speaking.clips import Clips
from benchmarks.mini.train.speaking.folder import save_speaker
from benchmarks.mini.train.speaking.lessons import LESSONS, Lesson
from benchmarks.mini.train.speaking.rows import Dictation, logits_of, spoken_loss
from benchmarks.mini.train.teacher import network as nets
from benchmarks.mini.train.teacher.attack import Codec
from benchmarks.mini.train.teacher.data import example, written_task
from benchmarks.mini.train.teacher.rows import Writer
from benchmarks.mini.train.teacher.swaps import Swaps
from benchmarks.mini.train.teacher.training import save_weights, soft_loss, to_frames

STEPS = 1600
RATE = 1.5e-3
COUNTS = (
    {"rewrite": 3, "improve": 10, "analyse": 8},
    {"advise": 10, "verify": 6},
    {"plan": 5, "improve": 8, "queries": 4},
    {"pick": 4, "advise": 8, "answers": 10},
)
"""Rows of each kind, in every fourth step from the first, the second, ...: lessons, queries that
are written, and videos that yes/no questions are asked about."""
_KEPT = 3.0
"""Weight of what is to stay as it is: the queries, and the answers."""


class SpeakerStage(Stage):
    """Trains the speaker in `folder`.

    Args:
        folder: of the speaker; holds the weights it begins with.
        teacher: folder of the teacher, whose answers it keeps.
        clips: that it is shown.
        seed: of the recipe.
        steps: optimiser steps in all.
        counts: `COUNTS`.
    """

    def __init__(
        self,
        folder: Path,
        teacher: Path,
        clips: Clips,
        *,
        seed: int,
        steps: int,
        counts: tuple[dict[str, int], ...] = COUNTS,
    ) -> None:
        network = nets.new_network(folder, seed)
        weights = load_file(folder / "model.safetensors")
        with torch.no_grad():
            for key, value in network.named_parameters():
                value.copy_(weights[key])
        super().__init__(network, name="speaker", seed=seed, steps=steps, rate=RATE)
        self.writer = Writer(folder)
        self.teacher = Writer(teacher)
        self.dictation = Dictation(folder)
        self.swaps = Swaps(self.writer.tokenizer)
        self.clips = clips
        self.counts = counts

    def batch(self, step: int) -> dict[str, list[Lesson]]:
        """The lessons of a step, drawn from (seed, step)."""
        rng = draws(self.seed, "speaker", step)
        counts = self.counts[step % len(self.counts)]
        return {
            kind: LESSONS[kind](rng, self.clips, count)
            for kind, count in counts.items()
            if kind in LESSONS
        }

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch as it is: lessons hold no tensors."""
        return batch

    def loss(
        self, batch: dict[str, list[Lesson]], draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of all rows, and that of each kind."""
        facts: dict[str, Tensor] = {}
        total = torch.zeros(())
        for kind, lessons in batch.items():
            spoken = self.dictation(lessons)
            # What is copied is learnt by copying words that no task pairs.
            spoken = replace(spoken, rows=self.swaps(spoken.rows, draw))
            with quick_arithmetic():
                logits = logits_of(self.network, spoken)
            loss = spoken_loss(logits, spoken.rows.targets)
            facts[kind] = loss
            total = total + loss
        counts = self.counts[self.done % len(self.counts)]
        if count := counts.get("queries"):
            facts["queries"] = kept = self._queries(count, draw)
            total = total + _KEPT * kept
        if count := counts.get("answers"):
            facts["answers"] = kept = self._answers(count)
            total = total + _KEPT * kept
        return total, {name: value.detach() for name, value in facts.items()}

    def _queries(self, count: int, draw: torch.Generator) -> Tensor:
        """The cross-entropy of replies to requests for queries, as in the teacher's training."""
        rng = draws(self.seed, "speaker/queries", self.done)
        tasks = [written_task(rng) for _ in range(count)]
        rows = self.swaps(self.writer.requests(tasks, [3] * len(tasks)), draw)
        first = to_frames([task.first_frame[None] / 255 for task in tasks])
        with quick_arithmetic():
            logits, *_ = self.writer.read(self.network, first, rows)
        return spoken_loss(logits, rows.targets)

    def _answers(self, count: int) -> Tensor:
        """How far the answers to yes/no questions are from the teacher's."""
        rng = draws(self.seed, "speaker/answers", self.done)
        some = [example(rng, "train") for _ in range(count)]
        frames = to_frames([item.video for item in some])
        rows = self.writer.questions([[q.text for q in item.task.queries] for item in some])
        with quick_arithmetic():
            logits, *_ = self.writer.read(self.network, frames, rows)
            with torch.no_grad():
                told = self.writer.log_yes(self.teacher.teacher.network, frames, rows).exp()
        told = told.clamp(1e-4, 1 - 1e-4)
        least = F.binary_cross_entropy(told, told, reduction="none")
        return (soft_loss(logits.float(), told, self.writer) - least).sum(1).mean()


def run(arguments: argparse.Namespace) -> None:
    """The stage: goes on from `teacher/`, writes `speaker/`.

    Raises:
        ValueError: there is no finished teacher, or no autoencoder.
    """
    out: Path = arguments.out
    teacher, folder = out / "teacher", out / "speaker"
    if not (teacher / "model.safetensors").is_file():
        raise ValueError(
            f"out: got {out} without teacher/, expected a finished teacher; run "
            f"`python -m benchmarks.mini.train slopes --out {out}` first"
        )
    save_speaker(teacher, folder)
    stage = SpeakerStage(
        folder,
        teacher,
        Clips(Codec(autoencoder.load(out)), arguments.seed),
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
    )
    if train(stage, out, minutes=arguments.minutes, every=25):
        save_weights(stage.deliver().state_dict(), folder)
