"""Rows of tokens: the very prompts that a family asks and writes with, as batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train.teacher import network as nets
from benchmarks.mini.train.teacher.tokens import PATCHES, TOKENS
from vlmteach.mini.world import FPS, FRAMES, SIZE, Task
from vlmteach.teachers.internvl import InternVLTeacher
from vlmteach.teachers.packing import Prompt, pack
from vlmteach.teachers.qwen_vl import Qwen3VLTeacher

_BLOCKED = -1e4
"""Added to the attention score of a place that must not be seen."""
TIMES = tuple(index / FPS for index in range(FRAMES))


@dataclass(frozen=True, slots=True)
class Rows:
    """Token rows of equal length; see `network.read` for the shapes. Positions are
    [axes, B, S], three axes for M-RoPE, else one."""

    ids: Tensor
    visual: Tensor
    positions: Tensor
    bias: Tensor
    scored: Tensor
    targets: Tensor
    """[B, Q] next tokens at the scored places, where there is one right token; -1 is none."""


class Writer:
    """Turns questions and requests into rows, with the tokenizer and template of a folder."""

    family: type[Qwen3VLTeacher] | type[InternVLTeacher] = Qwen3VLTeacher

    def __init__(self, folder: Path) -> None:
        self.teacher: Any = self.family.load(
            folder,
            dtype=torch.float32,
            device="cpu",
            frame_pixels=SIZE**2,
            share_video=True,
        )
        config = self.teacher.network.config
        self.image: int = config.image_token_id
        self.video: int = getattr(config, "video_token_id", self.image)
        self.yes: int = self.teacher.answer_ids[0]
        self.tokenizer: Any = self.teacher.tokenizer
        self.no: int = self.tokenizer.encode("No", add_special_tokens=False)[0]
        self._prompts: dict[str, Prompt] = {}

    def prompt(self, question: str) -> Prompt:
        """One question about a whole video, as `prepare` asks it."""
        if question not in self._prompts:
            one = self.teacher.prepare([question], TIMES, SIZE, SIZE).passes[0]
            is_video = one.ids[0] == self.video
            self._prompts[question] = Prompt(
                ids=one.ids[0],
                positions=one.positions[:, 0],
                prefix=int(is_video.nonzero()[-1]) + 1,
            )
        return self._prompts[question]

    def questions(self, asked: Sequence[Sequence[str]]) -> Rows:
        """One row per video, with all of its questions; equally many for each video."""
        packs = [pack([self.prompt(text) for text in texts], 1) for texts in asked]
        length = max(packed.ids.shape[1] for packed in packs)
        ids = torch.zeros(len(packs), length, dtype=torch.long)
        axes = len(packs[0].positions)
        positions = torch.zeros(axes, len(packs), length, dtype=torch.long)
        bias = torch.full((len(packs), 1, length, length), _BLOCKED)
        for row, packed in enumerate(packs):
            size = packed.ids.shape[1]
            ids[row, :size] = packed.ids[0]
            positions[:, row, :size] = packed.positions[:, 0]
            seen = torch.ones(size, size).tril() if packed.mask is None else packed.mask[0, 0]
            bias[row, 0, :size, :size].masked_fill_(seen.bool(), 0)
        first = packs[0].ids[0] == self.video
        scored = torch.stack([packed.scored for packed in packs])
        return Rows(
            ids, first.nonzero()[:, 0], positions, bias, scored, torch.full_like(scored, -1)
        )

    def log_yes(self, network: Any, frames: Tensor, rows: Rows) -> Tensor:
        """log P("Yes") of each question, [B, Q]; the arguments are those of `read`."""
        logits, *_ = self.read(network, frames, rows)
        return logits.float().log_softmax(-1)[..., self.yes]

    def read(self, network: Any, frames: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """`network.read` of frames [B, T, 3, H, W] in [0, 1] and their rows."""
        return nets.read(
            network, nets.patch_rows(frames), rows.ids, rows.visual, rows.positions, rows.bias,
            rows.scored,
        )  # fmt: skip

    def requests(self, tasks: Sequence[Task], most: Sequence[int]) -> Rows:
        """One row per task: the request for its queries, and the reply, of which each token is
        scored.

        Args:
            tasks: whose first frame the row is about.
            most: process queries asked for, per task.
        """
        rows = [self._request(task, limit) for task, limit in zip(tasks, most, strict=True)]
        length = max(len(ids) for ids, _ in rows)
        replies = max(len(ids) - start for ids, start in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        positions: list[Tensor] = []
        scored = torch.zeros(len(rows), replies, dtype=torch.long)
        targets = torch.full((len(rows), replies), -1)
        visual = torch.tensor(rows[0][0]).eq(self.image).nonzero()[:, 0]
        for row, (tokens, start) in enumerate(rows):
            size, count = len(tokens), len(tokens) - start
            ids[row, :size] = torch.tensor(tokens)
            places = self._image_positions(size, int(visual[0]))
            positions.append(F.pad(places, (0, length - size)))
            scored[row, :count] = torch.arange(start - 1, size - 1)
            targets[row, :count] = ids[row, start:size]
        bias = torch.full((length, length), _BLOCKED).triu(1)
        return Rows(
            ids, visual, torch.stack(positions, 1), bias.expand(len(rows), 1, -1, -1), scored,
            targets,
        )  # fmt: skip

    def _request(self, task: Task, most: int) -> tuple[list[int], int]:
        """Token ids of a request and its reply, and where the reply starts."""
        from vlmteach.queries import request
        from vlmteach.types import Instance

        instance = Instance(key=task.key, prompt=task.prompt, first_frame=_picture(task), digest="")
        content = [{"type": "image"}, {"type": "text", "text": request(instance, most)}]
        text = self.teacher.chat(content)
        text = text.replace(self.teacher.image_placeholder, self._shown_image())
        texts = [query.text for query in task.queries]
        reply = json.dumps({"goal": texts[0], "process": texts[1 : 1 + most]})
        before = self.tokenizer.encode(text, add_special_tokens=False)
        return before + self.tokenizer.encode(reply + "<|im_end|>", add_special_tokens=False), len(
            before
        )

    def _shown_image(self) -> str:
        """What stands for an image of the world's size."""
        return self.teacher.image_placeholder * TOKENS

    def _image_positions(self, size: int, start: int) -> Tensor:
        """[axes, size] positions of a row with one image, of which the first token is at `start`:
        M-RoPE's."""
        side = PATCHES // 2
        cell = torch.arange(TOKENS)
        image = torch.stack([torch.zeros_like(cell), cell // side, cell % side]) + start
        tail = torch.arange(size - start - TOKENS) + start + side
        return torch.cat([torch.arange(start).expand(3, -1), image, tail.expand(3, -1)], 1)


def _picture(task: Task) -> Any:
    from PIL import Image

    return Image.fromarray(task.first_frame)
