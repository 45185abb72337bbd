"""The classifier that a user without rules could train: labelled clips, and nothing else.

Half of the clips are drawn and spoilt as the teacher's are, half of those as the autoencoder shows
them; the other half is what fits of the teacher's stages came to. Each has one label a query, yes
or no, as a person would give it: the rules speak here in that person's place. How few clips would
do is measured by `clips_needed`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.classifier import ClipClassifier, save
from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import draws
from benchmarks.mini.train.loop import Stage, train
from benchmarks.mini.train.teacher.attack import Codec
from benchmarks.mini.train.teacher.data import Example, example
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from vlmteach.mini.world import answers

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from vlmteach.mini.world import Split, Task

NAME, WEIGHTS = "classifier", "classifier.safetensors"
CLIPS = 32_000
STEPS = 6_000
BATCH = 64
RATE = 2e-3
_YES = 0.5
"""Of the rules' answers, where strict success begins: from there on a person would say yes."""
_SHIFT = 1
"""Largest shift of what is seen, in pixels, either way: no label depends on it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A clip as its user has it."""

    clip: NDArray[np.uint8]
    """[T, H, W, 3]."""
    first: NDArray[np.uint8]
    """The given first frame [H, W, 3]."""
    prompt: str
    questions: tuple[str, ...]
    yes: tuple[bool, ...]
    """One a question."""


class LabelledClips:
    """A bank of clips, each made when it is first asked for; clip n is the same in a larger bank.

    Args:
        seed: of the recipe.
        count: clips in the bank.
        codec: the recipe's autoencoder; None leaves out what it shows.
        found: what fits found, for every other clip; None leaves it out.
        split: of the drawn ones.
    """

    def __init__(
        self,
        *,
        seed: int,
        count: int,
        codec: Codec | None = None,
        found: FoundVideos | None = None,
        split: Split = "train",
    ) -> None:
        self.seed = seed
        self.count = count
        self.codec = codec
        self.found = found
        self.split: Split = split
        self._clips: dict[int, Labelled] = {}

    def __getitem__(self, number: int) -> Labelled:
        """The clip with a number from 0."""
        if number not in self._clips:
            rng = draws(self.seed, f"{NAME}/clip", number)
            made = self._found(rng) if number % 2 and self.found is not None else self._drawn(rng)
            self._clips[number] = labelled(made.task, made.video)
        return self._clips[number]

    def _found(self, rng: Generator) -> Example:
        """What a fit delivered, as the clips are that it will be asked about, or what it showed on
        its way."""
        assert self.found is not None
        return self.found.delivered(rng) if rng.random() < 0.5 else self.found.example(rng)

    def _drawn(self, rng: Generator) -> Example:
        """One of the teacher's examples; every other one as the autoencoder shows it, its latents
        a little noisy."""
        made = example(rng, self.split)
        if self.codec is None or rng.random() < 0.5:
            return made
        frames = torch.from_numpy(made.video.astype(np.float32)).permute(0, 3, 1, 2)[None]
        z = self.codec.encode(frames)
        noise = torch.from_numpy(rng.standard_normal(z.shape, dtype=np.float32))
        with torch.no_grad():
            shown = self.codec.decode(z + 0.4 * float(rng.random()) ** 2 * noise)
        video = shown[0].permute(0, 2, 3, 1).numpy()
        return Example(made.task, video, answers(made.task, video), "decoded")


def labelled(task: Task, video: NDArray) -> Labelled:
    """A video [T, H, W, 3] in 0..1 as a clip of 8 bits, with the labels that the rules give it."""
    clip = np.rint(video * 255).astype(np.uint8)
    return Labelled(
        clip=clip,
        first=task.first_frame.copy(),  # of its own: the task has the whole truth behind it
        prompt=task.prompt,
        questions=tuple(query.text for query in task.queries),
        yes=tuple(answer >= _YES for answer in answers(task, clip)),
    )


class Classifying(Stage):
    """Cross-entropy of the answers.

    Args:
        bank: of the clips.
        seed: of the recipe.
        steps: optimiser steps.
    """

    def __init__(self, bank: LabelledClips, *, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        super().__init__(ClipClassifier(), name=NAME, seed=seed, steps=steps, rate=RATE)
        self.bank = bank

    def batch(self, step: int) -> list[Labelled]:
        """Clips of the bank, drawn from (seed, step)."""
        rng = draws(self.seed, NAME, step)
        return [self.bank[int(n)] for n in rng.integers(self.bank.count, size=BATCH)]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch as it is: clips hold no tensors that a device needs."""
        return batch

    def loss(
        self, batch: list[Labelled], draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of the answers, with the share of them that is right."""
        moves = torch.randint(2 * _SHIFT + 1, (len(batch), 2), generator=draw).tolist()
        with quick_arithmetic():
            logits = answered(self.network, batch, moves)
        wanted = torch.tensor([item.yes for item in batch])
        loss = F.binary_cross_entropy_with_logits(logits, wanted.float())
        return loss, {"right": ((logits > 0) == wanted).float().mean()}


def answered(
    classifier: ClipClassifier, clips: list[Labelled], moves: list[list[int]] | None = None
) -> Tensor:
    """Logits of yes [B, Q] for some clips with equally many questions.

    Args:
        classifier: is asked.
        clips: B of them.
        moves: of each clip down and to the right, 0 to twice `_SHIFT`, of which `_SHIFT` is none;
            None moves none.
    """
    seen = [np.concatenate([item.clip, item.first[None]]) for item in clips]
    frames = torch.from_numpy(np.stack(seen)).permute(0, 1, 4, 2, 3).float() / 255
    if moves is not None:
        h, w = frames.shape[-2:]
        wide = F.pad(frames.flatten(0, 1), (_SHIFT,) * 4, mode="replicate")
        wide = wide.unflatten(0, frames.shape[:2])
        frames = torch.stack(
            [one[..., y : y + h, x : x + w] for one, (y, x) in zip(wide, moves, strict=True)]
        )
    prompts = classifier.words([item.prompt for item in clips])
    questions = classifier.words([text for item in clips for text in item.questions])
    questions = questions.unflatten(0, (len(clips), -1))  # [B, Q, S]
    return classifier(frames[:, :-1], frames[:, -1], prompts, questions)


def bank_of(out: Path, *, seed: int, count: int) -> LabelledClips:
    """The bank of a recipe's folder.

    Raises:
        ValueError: the folder has no videos that fits found.
    """
    found = FoundVideos(out / "found", before=2**31)
    if not found.places:
        raise ValueError(
            f"out: got {out} without found/, expected the videos that the teacher's stages leave; "
            f"run `python -m benchmarks.mini.train all --out {out}` first"
        )
    codec = Codec(autoencoder.load(out))
    return LabelledClips(seed=seed, count=count, codec=codec, found=found)


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains the classifier, writes `classifier.safetensors`.

    Raises:
        ValueError: as in `bank_of`.
    """
    bank = bank_of(arguments.out, seed=arguments.seed, count=CLIPS)
    stage = Classifying(bank, seed=arguments.seed, steps=arguments.steps or STEPS)
    if train(stage, arguments.out, minutes=arguments.minutes):
        classifier = stage.deliver()
        assert isinstance(classifier, ClipClassifier)
        save(classifier, arguments.out / WEIGHTS)
