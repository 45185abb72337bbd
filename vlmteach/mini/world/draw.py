"""Flat colours and anti-aliased shapes on a white ground.

Coordinates are in pixels, x to the right and y down; the centre of the first pixel is (0.5, 0.5).
Coverage is exact for straight edges along an axis and within a few percent elsewhere, so a shape
may stand between pixels, and moves smoothly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.types import SIZE

if TYPE_CHECKING:
    from vlmteach.mini.world.types import Float

GROUND = np.array([0.92, 0.92, 0.92], np.float32)
COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.72, 0.15),
    "blue": (0.12, 0.18, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "pink": (0.90, 0.15, 0.85),
    "cyan": (0.10, 0.80, 0.90),
    "black": (0.08, 0.08, 0.08),
}
"""Red, green, blue in 0..1. Every two are at least 0.6 apart; black is for what things are not."""
PAINTS = tuple(name for name in COLOURS if name != "black")
SHAPES = ("square", "disc", "cross", "triangle", "ring")

_Y, _X = (np.mgrid[0:SIZE, 0:SIZE] + 0.5).astype(np.float32)


def colour(name: str) -> Float:
    """The colour of a name, [3]."""
    return np.array(COLOURS[name], np.float32)


def grid() -> tuple[Float, Float]:
    """x and y of every pixel's centre, each [H, W]."""
    return _X, _Y


def _per_frame(value: Float | float) -> Float:
    """A number, or one per frame [T] as [T, 1, 1]."""
    array = np.asarray(value, np.float32)
    return array[:, None, None] if array.ndim else array


def shape(name: str, x: Float | float, y: Float | float, radius: Float | float) -> Float:
    """Coverage of a shape about (x, y), [H, W], or [T, H, W] where an argument is [T].

    Args:
        name: one of `SHAPES`, or "diamond".
        x: centre, in pixels.
        y: centre, in pixels.
        radius: half of the shape's width, in pixels.
    """
    r = np.maximum(_per_frame(radius), 1e-3)
    dx, dy = _X - _per_frame(x), _Y - _per_frame(y)
    return np.clip(0.5 - _distance(name, dx, dy, r), 0, 1).astype(np.float32)


def _distance(name: str, dx: Float, dy: Float, r: Float) -> Float:
    """Signed distance to the edge, negative inside."""
    ax, ay = np.abs(dx), np.abs(dy)
    if name == "square":
        return np.maximum(ax, ay) - r
    if name == "disc":
        return np.hypot(dx, dy) - r
    if name == "diamond":
        return (ax + ay - r) / np.float32(2**0.5)
    if name == "cross":
        w = r * np.float32(3 / 7)
        return np.minimum(np.maximum(ax - w, ay - r), np.maximum(ay - w, ax - r))
    if name == "triangle":
        return np.maximum(dy - r, (2 * ax - dy - r) / np.float32(5**0.5))
    if name == "ring":
        away = np.hypot(dx, dy)
        return np.maximum(away - r, r * np.float32(3 / 7) - away)
    raise ValueError(f"shape: got {name!r}, expected one of {SHAPES} or 'diamond'")


def outline(name: str, x: float, y: float, inner: float, thickness: float = 2.0) -> Float:
    """Coverage [H, W] of a hollow shape: free inside `inner`, `thickness` pixels wide."""
    return shape(name, x, y, inner + thickness) * (1 - shape(name, x, y, inner))


def box(left: float, top: float, right: float, bottom: float) -> Float:
    """Coverage [H, W] of a rectangle; the order of two opposite sides does not matter."""
    left, right = sorted((left, right))
    top, bottom = sorted((top, bottom))
    along = np.clip(np.minimum(_X + 0.5, right) - np.maximum(_X - 0.5, left), 0, 1)
    down = np.clip(np.minimum(_Y + 0.5, bottom) - np.maximum(_Y - 0.5, top), 0, 1)
    return (along * down).astype(np.float32)


def bar(
    x: Float | float, y: Float | float, angle: Float | float, half: Float | float, width: float
) -> Float:
    """Coverage of a bar about (x, y): `half` its half length, `width` its half width.

    Args:
        x: centre, in pixels; a number or [T].
        y: centre, in pixels; a number or [T].
        angle: radians, 0 is flat, growing clockwise on the screen; a number or [T].
        half: half of the length, in pixels; a number or [T].
        width: half of the width, in pixels.
    """
    turn = _per_frame(angle)
    dx, dy = _X - _per_frame(x), _Y - _per_frame(y)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    edge = np.maximum(np.abs(along) - _per_frame(half), np.abs(across) - width)
    return np.clip(0.5 - edge, 0, 1).astype(np.float32)


def lay(frames: Float, mask: Float, name: str) -> None:
    """Lays a colour over frames [..., H, W, 3] in place, `mask` [..., H, W] its opacity."""
    frames += mask[..., None] * (colour(name) - frames)


def widened(mask: Float, pixels: int = 1) -> Float:
    """A mask [H, W] grown by so many pixels in all eight directions."""
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
        mask = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return mask


def enclosed(mask: Float) -> np.ndarray:
    """Which pixels [H, W] of the ground a mask shuts off from the border: a ring's hole."""
    ground = mask < 0.05
    reached = np.pad(np.zeros_like(mask)[1:-1, 1:-1], 1, constant_values=1) * ground
    while True:
        wider = widened(reached) * (mask < 0.5)
        if (wider == reached).all():
            return ground & (reached == 0)
        reached = wider


def shifted(mask: Float, dx: float, dy: float) -> Float:
    """A mask [..., H, W] moved by a fraction of pixels, empty where nothing moves in."""
    for axis, step in ((-1, dx), (-2, dy)):
        whole = int(np.floor(step))
        part = np.float32(step - whole)
        mask = (1 - part) * _moved(mask, whole, axis) + part * _moved(mask, whole + 1, axis)
    return mask


def _moved(mask: Float, step: int, axis: int) -> Float:
    out = np.zeros_like(mask)
    source, target = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
    source[axis] = slice(max(-step, 0), SIZE - max(step, 0))
    target[axis] = slice(max(step, 0), SIZE - max(-step, 0))
    out[tuple(target)] = mask[tuple(source)]
    return out
