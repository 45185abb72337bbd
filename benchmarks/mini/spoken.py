"""One teacher for all methods: it sees with its own weights, and speaks with the speaker's.

    --teacher.family benchmarks.mini.spoken.SpokenTeacher

What a method asks for in prose (a prompt, an analysis, a plan, a pick) the speaker writes; queries
and every answer to one are the teacher's. So the rows of a sweep differ in the method alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from vlmteach.checkpoints.find import find
from vlmteach.teachers.qwen_vl import Qwen3VLTeacher

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

SPEAKER = "builtin:mini/speaker"
QUERIES = '"goal": "..."'
"""In every request for queries, and in no other."""
SHEET_PIXELS = 144 * 32
"""Of a contact sheet: the speaker sees it in the size that it learnt on."""


class SpokenTeacher(Qwen3VLTeacher):
    """The miniature's teacher, which has `SPEAKER` write its prose."""

    speaker: Qwen3VLTeacher

    @classmethod
    def load(cls, checkpoint: str | Path, *, frame_pixels: int, **settings: Any) -> Self:
        """Both, with the same settings but for the size of an image."""
        sight = find(str(checkpoint), "teacher", "qwen3_vl")
        teacher = super().load(sight, frame_pixels=frame_pixels, **settings)
        speech = find(SPEAKER, "teacher", "qwen3_vl")
        teacher.speaker = Qwen3VLTeacher.load(speech, frame_pixels=SHEET_PIXELS, **settings)
        return teacher

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """See `Writer`."""
        if QUERIES in instruction:
            return super().write(instruction, images, max_new_tokens)
        return self.speaker.write(instruction, images, max_new_tokens)
