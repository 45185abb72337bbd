"""Which pixels of a video show which of a task's colours, and the curves that grade it.

A pixel at the edge of an object is a mixture of ground and object. Each colour's share is the
pixel's place on the line from the ground to that colour; pixels beside that line show another
colour, or none. Blur moves share from pixel to pixel but keeps its sum, so places and areas stay
right in a blurred video.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.draw import GROUND, colour, grid
from vlmteach.mini.world.types import FRAMES, SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vlmteach.mini.world.types import Float

_CAST = 0.15
"""Largest offset from the ground in any channel, noise included, that still counts as ground."""
_DEAD = 0.2
"""Shares below it, and missing ones, are noise."""
_NEAR, _FAR = 0.18, 0.45
"""Distance from a colour's line, in 0..1 RGB: wholly that colour, and not that colour."""
_ENOUGH = 0.65
"""Share of a colour that is as good as all of it, where an object should be."""
_SPREAD = 0.09
"""Scale on which two lines compete for a pixel."""


class Evidence:
    """The colours of one video, [T, H, W] each."""

    def __init__(self, video: NDArray, colours: Sequence[str]) -> None:
        """Reads a video.

        Args:
            video: [T, H, W, 3], uint8 or float in 0..1.
            colours: the colours to look for; the ground is never one.

        Raises:
            ValueError: a video of another shape, or with values that are not finite.
        """
        away = _pixels(video) - GROUND
        away -= _cast(away)
        lines = np.stack([colour(name) - GROUND for name in colours], axis=1)  # [3, K]
        length = (lines**2).sum(0)
        along = away @ lines  # [T, H, W, K]
        share = np.clip(along / length, 0, 1)
        beside = (away**2).sum(-1)[..., None] + share * (share * length - 2 * along)
        beside = np.maximum(beside, 0)
        claim = np.exp(beside / np.float32(-2 * _SPREAD**2))
        claim /= claim.sum(-1, keepdims=True) + 1e-12
        claim *= np.clip((_FAR - np.sqrt(beside)) / (_FAR - _NEAR), 0, 1)
        shown = claim * np.clip((share - _DEAD) / (1 - 2 * _DEAD), 0, 1)
        self._shown = dict(zip(colours, np.moveaxis(shown, -1, 0).copy(), strict=True))
        self._share = dict(zip(colours, np.moveaxis(claim * share, -1, 0), strict=True))

    def of(self, name: str) -> Float:
        """Share of a colour per pixel, [T, H, W] in 0..1; what is faint is nothing, what is nearly
        whole is whole, so that noise does not add up over an empty image."""
        return self._shown[name]

    def kept(self, names: Sequence[str], mask: Float) -> Float:
        """How much of a mask [H, W] shows one of the colours, per frame: [T] in 0..1.

        Only the mask's core counts, and two thirds of a colour are as good as all of it, so that
        blurred edges cost nothing.
        """
        core = mask > 0.6
        if not core.any():
            return np.ones(FRAMES, np.float32)
        shown = sum(self._share[name][:, core] for name in names)
        return np.minimum(shown / np.float32(_ENOUGH), 1).mean(-1)


def _cast(away: Float) -> Float:
    """The mean colour of what is plainly ground, [3], as an offset: a video's colour cast."""
    ground = np.abs(away).max(-1) < _CAST
    return away[ground].mean(0) if ground.any() else np.zeros(3, np.float32)


def _pixels(video: NDArray) -> Float:
    if video.shape != (FRAMES, SIZE, SIZE, 3):
        raise ValueError(
            f"video: got shape {list(video.shape)}, expected [{FRAMES}, {SIZE}, {SIZE}, 3]; "
            "score the whole clip, channels last"
        )
    if video.dtype == np.uint8:
        return video.astype(np.float32) / 255
    pixels = video.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ValueError("video: got values that are not finite, expected 0 to 1; check the clip")
    return np.clip(pixels, 0, 1)


def rise(value: Float | float, low: float, high: float) -> Float:
    """0 at or below `low`, 1 at or above `high`, straight between."""
    return np.clip((np.asarray(value, np.float32) - low) / (high - low), 0, 1)


def fall(value: Float | float, low: float, high: float) -> Float:
    """1 at or below `low`, 0 at or above `high`, straight between."""
    return 1 - rise(value, low, high)


def worst(per_frame: Float) -> float:
    """The mean of the three worst frames: a fault counts even where it is brief."""
    return float(np.sort(per_frame)[:3].mean())


def opened(filled: Float) -> Float:
    """1 where a hole is open, 0 where it is filled; half open will do, for blur fills small ones.

    Args:
        filled: share of the hole that shows the object's colours, in 0..1.
    """
    return fall(filled, 0.55, 0.95)


def steps(progress: Float) -> float:
    """Whether something happens step by step: it gets on, never back, and nowhere all at once.

    Args:
        progress: done share per frame, [T], 0 at the start and 1 at the goal.
    """
    way = float(progress[-1] - progress[0])
    change = np.diff(progress)
    scale = max(way, 0.1)
    jump, back = float(change.max()) / scale, float(-change[change < 0].sum()) / scale
    return float(rise(way, 0.06, 0.15) * fall(jump, 0.36, 0.75) * fall(back, 0.15, 0.45))


def centroid(shown: Float, least: float) -> tuple[Float, Float]:
    """The centre of what is shown, x and y, each [T].

    Args:
        shown: [T, H, W].
        least: mass below which the centre is pulled to the middle of the image.
    """
    x, y = grid()
    mass = shown.sum((1, 2))
    lack = np.maximum(least - mass, 0)
    total = np.maximum(mass + lack, 1e-6)
    middle = SIZE / 2
    return (
        ((shown * x).sum((1, 2)) + lack * middle) / total,
        ((shown * y).sum((1, 2)) + lack * middle) / total,
    )
