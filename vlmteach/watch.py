"""What a teacher says of a delivered clip: frames of a file, no gradient, nothing fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmteach.frames import watched_frames

if TYPE_CHECKING:
    from torch import Tensor

    from vlmteach.teachers.base import Watcher
    from vlmteach.types import Query


def watch(
    teacher: Watcher, clip: Tensor, queries: Sequence[Query], *, fps: float, frames: int
) -> Tensor:
    """log P("Yes") of each query about a clip, [Q] on the teacher's device, without gradient.

    The frames are those that the micro-fit shows (uniformly spread, first and last included), at
    the times that they have in the clip.

    Args:
        teacher: asked.
        clip: uint8 [T, H, W, 3], as it was delivered.
        queries: Q of them.
        fps: of the clip, frames per second.
        frames: K at most.

    Raises:
        ValueError: no query, or one that the teacher cannot be asked.
    """
    import torch

    watched = watched_frames(teacher, len(clip), frames, *clip.shape[1:3])
    pixels = clip[watched].permute(0, 3, 1, 2).float() / 255  # K H W C -> K C H W
    times = [index / fps for index in watched]
    prepared = teacher.prepare([query.text for query in queries], times, *pixels.shape[2:])
    with torch.no_grad():
        return teacher.log_p_yes(pixels.to(teacher.device), prepared)
