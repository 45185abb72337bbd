"""Lessons as rows: the very tokens and patches that `Qwen3VLTeacher.write` hands to its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train.speaking.lessons import Lesson
from benchmarks.mini.train.teacher import network as nets
from benchmarks.mini.train.teacher.rows import Rows
from vlmteach.teachers.qwen_vl import Qwen3VLTeacher

FRAME_PIXELS = 144 * 32
"""`teacher.frame_pixels` of a speaker: a contact sheet of four frames keeps its size, but for a
rounding to whole patches."""
_BLOCKED = -1e4
_END = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class SpokenRows:
    """Rows of equal length, about equally many images of equal size."""

    rows: Rows
    patches: Tensor | None
    """[B, N, D]; None without images."""
    size: tuple[int, int]
    """Patches of an image along (h, w)."""


class _Listener:
    """Stands in for the network, and keeps what it was to write about."""

    device = torch.device("cpu")

    def __init__(self, config: Any) -> None:
        self.config = config
        self.heard: dict[str, Any] = {}

    def generate(self, **inputs: Any) -> Tensor:
        """Writes nothing."""
        self.heard = inputs
        return inputs["input_ids"]


def load(folder: Path) -> Qwen3VLTeacher:
    """A speaker as a teacher, in float32."""
    return Qwen3VLTeacher.load(
        folder, dtype=torch.float32, device="cpu", frame_pixels=FRAME_PIXELS, share_video=True
    )


class Dictation:
    """Turns lessons into rows, with the tokenizer and template of a speaker's folder."""

    def __init__(self, folder: Path) -> None:
        self.teacher = load(folder)
        self.network = self.teacher.network
        self.tokenizer: Any = self.teacher.tokenizer
        self._listener = self.teacher.network = _Listener(self.network.config)

    def __call__(self, lessons: Sequence[Lesson]) -> SpokenRows:
        """Rows of lessons that have equally many images, of equal size."""
        heard = [self._heard(lesson) for lesson in lessons]
        before = [inputs["input_ids"][0] for inputs in heard]
        replies = [
            torch.tensor(self.tokenizer.encode(x.reply + _END, add_special_tokens=False))
            for x in lessons
        ]
        count, most = len(lessons), max(map(len, replies))
        length = max(len(a) + len(b) for a, b in zip(before, replies, strict=True))
        ids = torch.zeros(count, length, dtype=torch.long)
        positions = torch.zeros(3, count, length, dtype=torch.long)
        scored = torch.zeros(count, most, dtype=torch.long)
        targets = torch.full((count, most), -1)
        for row, (asked, reply) in enumerate(zip(before, replies, strict=True)):
            start, end = len(asked), len(asked) + len(reply)
            ids[row, :end] = torch.cat([asked, reply])
            positions[:, row, :end] = self._positions(ids[row, :end], heard[row])
            scored[row, : len(reply)] = torch.arange(start - 1, end - 1)
            targets[row, : len(reply)] = reply
        bias = torch.full((length, length), _BLOCKED).triu(1).expand(count, 1, -1, -1)
        visual = (ids[0] == self.network.config.image_token_id).nonzero()[:, 0]
        rows = Rows(ids, visual, positions, bias, scored, targets)
        if "pixel_values" not in heard[0]:
            return SpokenRows(rows, None, (0, 0))
        patches = torch.stack([inputs["pixel_values"] for inputs in heard])
        _, h, w = heard[0]["image_grid_thw"][0].tolist()
        return SpokenRows(rows, patches, (h, w))

    def _heard(self, lesson: Lesson) -> dict[str, Any]:
        self.teacher.write(lesson.request, lesson.images, 1)
        return self._listener.heard

    def _positions(self, ids: Tensor, inputs: dict[str, Any]) -> Tensor:
        """[3, S] M-RoPE positions of a row."""
        is_image = (ids == self.network.config.image_token_id).int()
        positions, _ = self.network.model.get_rope_index(
            ids[None], mm_token_type_ids=is_image[None], image_grid_thw=inputs.get("image_grid_thw")
        )
        return positions[:, 0]


def logits_of(network: Any, spoken: SpokenRows) -> Tensor:
    """Logits [B, Q, V] at the scored places."""
    rows = spoken.rows
    embedding = network.model.language_model.embed_tokens.weight
    embeds = F.embedding(rows.ids, embedding)
    if spoken.patches is not None:
        seen = nets.see(network, spoken.patches, spoken.size)
        embeds = embeds.index_copy(1, rows.visual, seen.to(embeds.dtype))
    bias = rows.bias
    if torch.is_autocast_enabled("cpu"):
        bias = bias.to(torch.get_autocast_dtype("cpu"))
    hidden = nets.think(network, embeds, rows.positions, bias)
    asked = hidden.gather(1, rows.scored[..., None].expand(-1, -1, hidden.shape[-1]))
    return F.linear(asked, embedding)


def spoken_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over replies of the cross-entropy of all their tokens."""
    each = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    return each / len(targets)
