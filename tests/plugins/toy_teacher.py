"""A teacher family from outside: written against the protocols, named by its class path.

It sees the mean colour of each frame, and likes one colour for each query: red for most.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from vlmteach.teachers.base import TeacherFacts

QUERIES = {"goal": "Is the picture red at the end?", "process": ["Does it stay bright?"]}


@dataclass(frozen=True)
class Tastes:
    """[Q, 3] what each query likes of a colour, and [K] how much each frame counts."""

    colours: Tensor
    frames: Tensor


class ToyTeacher:
    facts = TeacherFacts(family="toy", layout="toy: mean colours")

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        dtype: torch.dtype,
        device: torch.device,
        frame_pixels: int,
        share_video: bool,
        checkpointing: bool,
        video_tokens: int | None = None,
    ) -> Self:
        return cls(device)

    def frames_of(self, most: int, height: int, width: int) -> int:
        return most

    def prepare(
        self, queries: Sequence[str], times: Sequence[float], height: int, width: int
    ) -> Tastes:
        seeds = [zlib.crc32(query.encode()) for query in queries]
        liked = [[2.0, (seed % 7) / 7, (seed % 11) / 11 - 1] for seed in seeds]
        late = torch.arange(1.0, len(times) + 1, device=self.device)
        return Tastes(torch.tensor(liked, device=self.device), late / late.sum())

    def log_p_yes(self, frames: Tensor, prepared: Tastes) -> Tensor:
        seen = frames.to(self.device).float().mean((2, 3))  # [K, 3]
        return F.logsigmoid(prepared.colours @ (prepared.frames @ seen) - 1)

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        return json.dumps(QUERIES)
