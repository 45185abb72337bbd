"""A vision-language model that watches delivered clips: a run's teacher, or one it had not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmteach.watch import watch

if TYPE_CHECKING:
    import torch

    from vlmteach.config import TeacherConfig
    from vlmteach.types import Query


class Viewer:
    """Asked about clips as the micro-fit asks its teacher.

    Args:
        settings: the model, and how many frames it watches.
        device: where it lives.

    Raises:
        ValueError: for a checkpoint that does not fit its family.
    """

    def __init__(self, settings: TeacherConfig, device: torch.device) -> None:
        from vlmteach.teachers.loading import load_teacher

        self.frames = settings.frames
        self.teacher = load_teacher(settings, device, False)

    def p_yes(self, queries: Sequence[Query], clip: torch.Tensor, fps: float) -> tuple[float, ...]:
        """P("Yes") to each query about a clip.

        Args:
            queries: Q of them.
            clip: uint8 [T, H, W, 3].
            fps: of the clip, frames per second.
        """
        log_p_yes = watch(self.teacher, clip, queries, fps=fps, frames=self.frames)
        return tuple(log_p_yes.double().exp().tolist())
