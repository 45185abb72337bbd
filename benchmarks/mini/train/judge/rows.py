"""Rows of tokens as `InternVLTeacher` asks and writes: the teacher's, with one axis of places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.mini.train.judge import network as nets
from benchmarks.mini.train.judge.tokens import TOKENS
from benchmarks.mini.train.teacher.network import answer
from benchmarks.mini.train.teacher.rows import Rows, Writer
from vlmteach.teachers.internvl import InternVLTeacher


class JudgeWriter(Writer):
    """Turns questions and requests into an InternVL's rows."""

    family = InternVLTeacher

    def read(self, network: Any, frames: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """As the teacher's: logits, visual tokens, last hidden states."""
        seen = nets.see(network, nets.patch_rows(frames))
        return answer(
            network, seen, rows.ids, rows.visual, rows.positions[0], rows.bias, rows.scored
        )

    def _shown_image(self) -> str:
        return "<img>" + "<IMG_CONTEXT>" * TOKENS + "</img>"

    def _image_positions(self, size: int, start: int) -> Tensor:
        """[1, size]: plain positions."""
        return torch.arange(size)[None]
