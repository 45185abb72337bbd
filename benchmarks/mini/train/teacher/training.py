"""The teacher: a Qwen3-VL that answers the world's queries as the rules do, and writes them.

It is trained to be climbed. What an optimiser shows it is no drawn video but a blurred mixture on
its way to one, and in time whatever the teacher wrongly likes. So most videos are mixed and spoilt
(`data`), some are climbed (`attack`), and in the second half every other one comes
from micro-fits against the teacher as it is (`found_videos`). The rules say what each is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import draws
from benchmarks.mini.train.loop import Stage, train
from benchmarks.mini.train.teacher import network as nets
from benchmarks.mini.train.teacher.attack import Codec, climbed, in_latents, in_pixels
from benchmarks.mini.train.teacher.data import Example, examples, written_task
from benchmarks.mini.train.teacher.dense_losses import DenseLosses, colour_shares
from benchmarks.mini.train.teacher.fits import Climber
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from benchmarks.mini.train.teacher.rows import Writer
from benchmarks.mini.train.teacher.swaps import Swaps
from benchmarks.mini.train.teacher.tokens import Width, save_folder
from benchmarks.mini.train.teacher.unnamed_colours import recoloured, unnamed
from vlmteach.mini.world import COLOURS, Task, answers
from vlmteach.queries import generic_queries

WIDTH = Width()
STEPS = 3400
BATCH = 32
RATE = 2e-3
ATTACKED = 6
"""Rows of every other batch that are climbed, once the teacher answers at all."""
_ON_POLICY = 0.45
"""Share of the steps after which fits are run against the teacher."""
FITS = (50, 10)
"""Steps from one round of fits to the next, and fits in a round."""
_SCHOOL = 0.4
"""Share of the steps with short questions and dense losses at each."""
_GENERIC = 0.1
"""Share of videos that are asked about in generic words."""
_UNNAMED = 0.6
"""Share of the videos of `unnamed` families in a colour without a name."""
LOWEST = -5.0
"""log P("Yes") below which its value is of no interest."""
SLOPE = 0.1
"""Weight of the loss by which log P("Yes") follows the label's."""
REQUESTS = 1 / 4
"""Rows in which queries are written, per video, in every other batch."""


class TeacherStage(Stage):
    """Trains the teacher in `folder`."""

    writes: type[Writer] = Writer
    dense: type[DenseLosses] = DenseLosses

    def __init__(
        self,
        folder: Path,
        network: Any,
        *,
        name: str = "teacher",
        seed: int,
        steps: int,
        rate: float = RATE,
        begun: int = 0,
        batch: int,
        attacked: int,
        fits: tuple[int, int] = FITS,
        more: tuple[str, ...] = (),
        unnamed: tuple[str, ...] = (),
        stern: float = 1.0,
        lowest: float = LOWEST,
        slope: float = SLOPE,
        codec: Codec | None = None,
        recipe: Path | None = None,
    ) -> None:
        """Args beyond those of `Stage`:
        folder: of the teacher, `teacher/`.
        begun: steps of the stages before this one, whose curriculum it goes on with.
        batch: videos a step.
        attacked: `ATTACKED`.
        fits: steps from one round of fits to the next, and fits in a round.
        more: families that come more often, once for each time they are listed.
        unnamed: families often shown in a colour without a name (`unnamed_colours`).
        stern: power that the rules' answers are raised to (`tempering`).
        lowest: `LOWEST`; `slopes` has a deeper one.
        slope: `SLOPE`.
        codec: the recipe's autoencoder; None leaves out what needs it.
        recipe: folder with `wan/` and the surrogate; None leaves out the fits.
        """
        super().__init__(network, name=name, seed=seed, steps=steps, rate=rate)
        self.folder = folder
        self.begun = begun
        self.every, self.fits = fits
        self.more = more
        self.unnamed = unnamed
        self.stern = stern
        self.lowest = lowest
        self.slope = slope
        self.writer = self.writes(folder)
        self.swaps = Swaps(self.writer.tokenizer)
        self.count = batch
        self.attacked = attacked
        self.codec = codec
        self.recipe = recipe
        self._found: FoundVideos | None = None
        self._climber: Climber | None = None
        hidden = network.config.text_config.hidden_size
        self.dense_losses = self.dense(hidden, seed)

    def progress(self, step: int) -> float:
        """How far the curriculum is at a step of this stage, from 0 to 1."""
        return (self.begun + step) / (self.begun + self.steps)

    def batch(self, step: int) -> list[Example]:
        """Examples of the train split, drawn from (seed, step); easy ones first."""
        easy = min(max(1 - (self.progress(step) - 0.1) / 0.25, 0.0), 1)
        return examples(self.seed, self.begun + step, self.count, easy=easy, more=self.more)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch as it is: examples hold no tensors that a device needs."""
        return batch

    def loss(
        self, batch: list[Example], draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of the answers to the queries, with what is logged."""
        progress = self.progress(self.done)
        facts: dict[str, Tensor | float] = {}
        batch = self.mixed(batch, progress, draw, facts)
        plain = to_frames([item.video for item in batch])
        labels = torch.tensor([item.labels for item in batch])
        wanted = labels**self.stern
        frames, questions = self._shown(plain, [item.task for item in batch], draw)
        grounding = progress < _SCHOOL
        shares = colour_shares(frames) if grounding or self.done % 2 == 0 else None
        if grounding:
            assert shares is not None
            wanted = torch.cat([wanted, self._ground(shares, questions, draw)], 1)
        rows = self.writer.questions(questions)
        with quick_arithmetic():
            logits, seen, kept = self.writer.read(self.network, frames, rows)
        each = soft_loss(logits.float(), wanted, self.writer)
        loss = each.mean()
        excess = (each[:, :4] - entropy(wanted[:, :4])).detach()
        facts |= {"goal": excess[:, 0].mean(), "process": excess[:, 1:].mean()}
        graded = self.dense_losses.graded(kept[:, -wanted.shape[1] :][:, :4].float(), labels)
        facts["graded"] = graded.detach()
        loss = loss + 0.5 * graded
        if not grounding:
            sloped = self._sloped(logits[:, :4].float(), wanted)
            facts["sloped"] = sloped.detach()
            loss = loss + self.slope * sloped
        for kind in ("climbed", "found"):
            if rows_of := [i for i, item in enumerate(batch) if item.kind == kind]:
                facts[kind] = excess[rows_of].mean()
        if grounding:
            facts["ground"] = (each[:, 4:] - entropy(wanted[:, 4:])).mean().detach()
        if shares is not None:
            embedding = self.network.model.language_model.embed_tokens.weight
            dense = self.dense_losses.loss(seen.float(), shares, embedding, self._words())
            facts["dense"] = dense.detach()
            count = seen.shape[1]
            back = self.dense_losses.remembered(kept[:, :count].float(), shares)
            aim = colour_shares(
                to_frames([item.task.truth[-1:] / np.float32(255) for item in batch])
            )
            acting = torch.tensor([1 + list(COLOURS).index(item.task.cue[0]) for item in batch])
            hidden = kept[:, count : count + 4].float()
            named = torch.cat([colour_shares(plain), aim], 1)
            where = self.dense_losses.pointed(hidden, named, acting)
            facts |= {"back": back.detach(), "where": where.detach()}
            loss = loss + 0.5 * dense + 0.3 * back + 0.2 * where
        if progress < 0.1 or self.done % 2 == 0:
            written = self._written(draw)
            facts["written"] = written.detach()
            loss = loss + 0.3 * written
        return loss, facts

    def mixed(
        self,
        batch: list[Example],
        progress: float,
        draw: torch.Generator,
        facts: dict[str, Tensor | float],
    ) -> list[Example]:
        """The batch with what is not drawn: decoded, climbed and found videos.

        Args:
            batch: as drawn.
            progress: of the curriculum.
            draw: the only source of chance.
            facts: to which is added what is to be logged.
        """
        if self.codec is not None and progress > 0.15 and self.done % 2 == 0:
            batch = self.decoded(batch, self.count // 4, draw)
        if self.attacked and progress > _SCHOOL and self.done % 2 == 1:
            batch = self._attack(batch, draw)
        if self.recipe is not None and progress >= _ON_POLICY:
            batch = self._on_policy(batch, self.recipe, facts)
        return batch

    def _shown(
        self, frames: Tensor, tasks: list[Task], draw: torch.Generator
    ) -> tuple[Tensor, list[list[str]]]:
        """What the teacher sees and what it is asked: the videos and their tasks' queries, but for
        some in generic words, whose answers are the same, and some in a colour without a name."""
        frames, questions = frames.clone(), []
        for row, task in enumerate(tasks):
            generic = float(torch.rand((), generator=draw)) < _GENERIC
            queries = generic_queries(len(task.queries) - 1) if generic else task.queries
            texts = [query.text for query in queries]
            if task.family in self.unnamed and torch.rand((), generator=draw) < _UNNAMED:
                frames[row] = recoloured(frames[row], task.cue[0], draw)
                texts = [unnamed(text, task.cue[0]) for text in texts]
            questions.append(texts)
        return frames, questions

    def _sloped(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How far log P("Yes") is from the label's: fits climb it from far below, where the
        cross-entropy hardly tells one small probability from another."""
        log_yes = logits.log_softmax(-1)[..., self.writer.yes]
        return F.smooth_l1_loss(log_yes, labels.log().clamp_min(self.lowest))

    def _attack(self, batch: list[Example], draw: torch.Generator) -> list[Example]:
        """The batch with some of its videos climbed, and labelled anew by the rules."""
        unlike = range(self.count // 2, self.count)  # the first are for found videos
        rows = [i for i in unlike if batch[i].kind != "truth"][: self.attacked]
        some = [batch[i] for i in rows]
        asked = self.writer.questions([[q.text for q in item.task.queries] for item in some])
        steps = (1, 1, 2, 2, 4)[int(torch.randint(5, (1,), generator=draw))]

        def log_yes(frames: Tensor) -> Tensor:
            with quick_arithmetic():
                return self.writer.log_yes(self.network, frames, asked)

        clean = to_frames([item.video for item in some])
        chance = torch.rand(len(some), generator=draw)
        if self.codec is not None and torch.rand((), generator=draw) < 0.6:
            start, shown = in_latents(clean, self.codec, reach=1.2 * chance**1.5, draw=draw)
        else:
            pixels = 3 * torch.rand(len(some), generator=draw) ** 1.5
            start, shown = in_pixels(clean, colour=0.3 * chance**1.5, pixels=pixels, draw=draw)
        frames = climbed(start, shown, log_yes, steps=steps)
        return relabelled(batch, rows, frames, "climbed")

    def _on_policy(
        self, batch: list[Example], recipe: Path, facts: dict[str, Tensor | float]
    ) -> list[Example]:
        """The batch with videos that fits found in its first half; runs fits when due."""
        step = self.begun + self.done
        if self._found is None:
            self._found = FoundVideos(recipe / "found", before=step)
        if self.done % self.every == 0 or not self._found.places:
            if self._climber is None:
                self._climber = Climber(recipe, self.writer)
            network = self._delivered()
            count = self.fits
            facts |= self._found.collect(self._climber, network, step, seed=self.seed, count=count)
        rng = draws(self.seed, f"{self.name}/found", self.done)
        share = self.count // 2
        return [self._found.example(rng) for _ in range(share)] + batch[share:]

    def _delivered(self) -> Any:
        """The teacher as it would be delivered now: averaged weights, in bfloat16's steps."""
        network = deepcopy(self.network).eval().requires_grad_(False)
        for key, value in network.named_parameters():
            value.copy_(self.average[key].bfloat16())
        return network

    def decoded(self, batch: list[Example], count: int, draw: torch.Generator) -> list[Example]:
        """The batch with its last `count` as the autoencoder shows them, latents noisy."""
        assert self.codec is not None
        rows = list(range(len(batch) - count, len(batch)))
        z = self.codec.encode(to_frames([batch[i].video for i in rows]))
        level = 0.4 * torch.rand(len(rows), 1, 1, 1, 1, generator=draw) ** 2
        z = z + level * torch.randn(z.shape, generator=draw)
        with torch.no_grad():
            frames = self.codec.decode(z)
        return relabelled(batch, rows, frames, "decoded")

    def _words(self) -> Tensor:
        """Tokens of the colours' names, [7]."""
        encode = self.writer.tokenizer.encode
        return torch.tensor([encode(f" {n}", add_special_tokens=False)[0] for n in COLOURS])

    def _ground(self, shares: Tensor, questions: list[list[str]], draw: torch.Generator) -> Tensor:
        """Adds short questions, after a colour in the video and in its end; their labels."""
        mass = shares[..., 1:].sum((2, 3))  # [B, T, 7]
        labels = []
        names = list(COLOURS)
        for row, texts in enumerate(questions):
            picks = torch.randint(len(names), (2,), generator=draw).tolist()
            texts.append(f"{names[picks[0]]}?")
            texts.append(f"By the end of the video, {names[picks[1]]}?")
            labels.append([mass[row, :, picks[0]].max(), mass[row, -1, picks[1]]])
        return ((torch.tensor(labels) - 4) / 16).clamp(0, 1)

    def _written(self, draw: torch.Generator) -> Tensor:
        """Mean cross-entropy of the replies to requests for queries."""
        rng = draws(self.seed, f"{self.name}/written", self.done)
        tasks = [written_task(rng) for _ in range(round(REQUESTS * self.count))]
        most = [3 if i % 4 else 1 + i % 2 for i in range(len(tasks))]
        rows = self.swaps(self.writer.requests(tasks, most), draw)
        first = to_frames([task.first_frame[None] / np.float32(255) for task in tasks])
        with quick_arithmetic():
            logits, *_ = self.writer.read(self.network, first, rows)
        return F.cross_entropy(
            logits.float().flatten(0, 1), rows.targets.flatten(), ignore_index=-1
        )


def relabelled(batch: list[Example], rows: list[int], frames: Tensor, kind: str) -> list[Example]:
    """The batch with other videos in some rows, and what the rules say of them."""
    batch = list(batch)
    for i, video in zip(rows, frames.permute(0, 1, 3, 4, 2).numpy(), strict=True):
        batch[i] = Example(batch[i].task, video, answers(batch[i].task, video), kind)
    return batch


def soft_loss(logits: Tensor, labels: Tensor, writer: Writer) -> Tensor:
    """[B, Q] cross-entropy of the answer with "Yes" to the label's part, over the vocabulary."""
    log_p = logits.log_softmax(-1)
    return -(labels * log_p[..., writer.yes] + (1 - labels) * log_p[..., writer.no])


def entropy(labels: Tensor) -> Tensor:
    """What `soft_loss` cannot go below."""
    return F.binary_cross_entropy(labels, labels, reduction="none")


def to_frames(videos: list[Any]) -> Tensor:
    """Videos [T, H, W, 3] in 0..1 -> [B, T, 3, H, W]."""
    return torch.from_numpy(np.stack(videos).astype(np.float32)).permute(0, 1, 4, 2, 3).contiguous()


def save_weights(
    weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Writes model.safetensors as transformers lays it out."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().to(dtype).contiguous()
        for name, value in weights.items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains the teacher, writes `teacher/`.

    Wants the autoencoder from the start, and the flawed reasoner and the surrogate half-way.
    """
    folder = arguments.out / "teacher"
    save_folder(folder, WIDTH)
    network = nets.new_network(folder, arguments.seed)
    if not (folder / "model.safetensors").is_file():
        save_weights(network.state_dict(), folder)
    stage = TeacherStage(
        folder,
        network,
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        batch=BATCH,
        attacked=ATTACKED,
        codec=Codec(autoencoder.load(arguments.out)),
        recipe=arguments.out,
    )
    if train(stage, arguments.out, minutes=arguments.minutes, every=25):
        save_weights(stage.deliver().state_dict(), folder)
