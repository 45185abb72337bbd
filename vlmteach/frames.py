"""Which frames of a clip are watched, and from where.

K frames are spread evenly over the clip. In each update the teacher sees them from a little to the
side, moved as a whole by fractions of a pixel, with gradient. What is right stays right; what it
likes by accident of single pixels does not, so an adapter gains nothing by finding it (the random
jitter of feature visualisation, https://distill.pub/2017/feature-visualization).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmteach.seeding import generator

if TYPE_CHECKING:
    from vlmteach.teachers.base import Watcher


def uniform_frames(total: int, k: int) -> list[int]:
    """K of `total` frame indices, evenly spread, ascending, distinct, first and last included.

    All of them when k >= total. The last alone when k is 1: the first is often the given image.

    >>> uniform_frames(89, 5)
    [0, 22, 44, 66, 88]

    Raises:
        ValueError: `total` or `k` is below 1.
    """
    if total < 1 or k < 1:
        raise ValueError(f"uniform_frames: got total={total}, k={k}, expected both at least 1")
    if k >= total:
        return list(range(total))
    if k == 1:
        return [total - 1]
    # Integer rounding to nearest: with k <= total the step is at least 1, so none repeats.
    return [(2 * i * (total - 1) + k - 1) // (2 * (k - 1)) for i in range(k)]


def watched_frames(teacher: Watcher, total: int, k: int, height: int, width: int) -> list[int]:
    """The frames of a clip that a teacher is shown: `uniform_frames`, fewer over its budget.

    Args:
        teacher: asked how many it watches.
        total: frames of the clip.
        k: at most this many.
        height, width: their size in pixels.
    """
    return uniform_frames(total, teacher.frames_of(min(total, k), height, width))


def draw_shift(largest: float, *, seed: int, key: str, update: int) -> tuple[float, float]:
    """Down and right, uniform in [-largest, largest], as shares of height and width; the same
    arguments give the same shift.

    Args:
        largest: share, 0 for none.
        seed: the run's, or the instance's own.
        key: of the instance.
        update: number of updates made so far.
    """
    if not largest:
        return 0.0, 0.0
    chance = torch.rand(2, generator=generator(seed, key, f"shift/{update}"), dtype=torch.float64)
    down, right = ((2 * chance - 1) * largest).tolist()
    return down, right


def shifted(frames: Tensor, down: float, right: float) -> Tensor:
    """Frames moved down and to the right; the edge left behind repeats the outermost pixels.

    Linear between pixels. Built of slices, whose backward pass is deterministic on every device,
    unlike that of `grid_sample`.

    Args:
        frames: [..., H, W].
        down: share of H, in (-1, 1).
        right: share of W, in (-1, 1).
    """
    return _moved(_moved(frames, down * frames.shape[-2], -2), right * frames.shape[-1], -1)


def _moved(frames: Tensor, pixels: float, dim: int) -> Tensor:
    whole = int(pixels // 1)
    part = pixels - whole
    near = _rolled(frames, whole, dim)
    return near if part == 0 else torch.lerp(near, _rolled(frames, whole + 1, dim), part)


def _rolled(frames: Tensor, pixels: int, dim: int) -> Tensor:
    """Moved by whole pixels."""
    if pixels == 0:
        return frames
    size = frames.shape[dim]
    count = min(abs(pixels), size)
    shape = list(frames.shape)
    shape[dim] = count
    if pixels > 0:
        edge = frames.narrow(dim, 0, 1).expand(shape)
        return torch.cat([edge, frames.narrow(dim, 0, size - count)], dim)
    edge = frames.narrow(dim, size - 1, 1).expand(shape)
    return torch.cat([frames.narrow(dim, count, size - count), edge], dim)
