"""A shape that stays in its place and changes there: it grows, or it turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmteach.mini.world.draw import bar, enclosed, grid, lay, shape, widened
from vlmteach.mini.world.evidence import Evidence, centroid, fall, opened, rise, steps, worst
from vlmteach.mini.world.types import FRAMES, SIZE, Execution, Fixture, Float, Measured

_ANGLES = np.linspace(-0.4, 1.4, 37, dtype=np.float32)
"""Shares of the turn that are tried; beyond both ends, so that a peak there is seen whole."""
_PULL = 0.25
"""How much of a whole bar a whole turn outweighs, when two could be the bar."""


def _without(evidence: Evidence, name: str, fixtures: tuple[Fixture, ...]) -> Float:
    """What shows a colour and is no fixture, [T, H, W]."""
    shown = evidence.of(name)
    for fixture in fixtures:
        if fixture.colour == name:
            shown = shown * (1 - widened(fixture.mask))
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Grow:
    """A shape whose radius goes from `small` to `large`."""

    shape: str
    colour: str
    x: float
    y: float
    small: float
    large: float
    slide: tuple[float, float]
    """Unit vector: where `drift` takes it by the end."""
    copy_at: tuple[float, float]
    """Where `duplicate` leaves a copy of the small shape."""

    @property
    def zone(self) -> Float:
        """See `Action.zone`."""
        return shape(self.shape, self.x, self.y, self.large)

    def draw(self, frames: Float, tempo: Float, execution: Execution) -> None:
        """See `Action.draw`."""
        radius = self.small + (self.large - self.small) * execution.extent * tempo
        away = execution.drift * np.sin(np.pi * tempo)
        if execution.duplicate:
            copy = shape(self.shape, *self.copy_at, self.small)
            lay(frames, execution.duplicate * tempo[:, None, None] * copy, self.colour)
        x, y = self.x + away * self.slide[0], self.y + away * self.slide[1]
        lay(frames, shape(self.shape, x, y, radius), self.colour)

    def measure(self, evidence: Evidence, fixtures: tuple[Fixture, ...]) -> Measured:
        """See `Action.measure`."""
        px, py = grid()
        reach = self.large + 4
        close = np.maximum(np.abs(px - self.x), np.abs(py - self.y)) <= reach
        shown = _without(evidence, self.colour, fixtures)
        inside = shown * close
        mass = inside.sum((1, 2))
        least = float(shape(self.shape, self.x, self.y, self.small).sum())
        # Area grows with the square of the radius.
        radius = self.small * np.sqrt(mass / least)
        progress = (radius - self.small) / (self.large - self.small)
        x, y = centroid(inside, 0.3 * least)
        template = shape(self.shape, x, y - self._lift(radius), radius)
        agreed = np.minimum(inside, template).sum((1, 2))
        alike = agreed / np.maximum(np.maximum(inside, template).sum((1, 2)), 1e-6)
        away = np.hypot(x - self.x, y - self._lift(radius) - self.y)
        stray = (shown * ~close).sum((1, 2)) / least
        seen = rise(mass / least, 0.3, 0.7)
        goal = fall(abs(1 - float(progress[-1])), 0.05, 1.0) * rise(alike[-1], 0.35, 0.6)
        whole = worst(rise(alike, 0.34, 0.6) * seen * fall(stray, 0.1, 0.5))
        hole = enclosed(template[-1])
        if hole.any():  # that of the small ring is too small to tell
            whole *= float(opened(inside[-1][hole].mean()))
        parts = {
            "steps": steps(progress) * worst(seen),
            "place": worst(fall(away, 1.2, 4.0) * seen),
            "whole": whole,
        }
        return Measured(float(goal), parts)

    def _lift(self, radius: Float) -> Float:
        """How far the centre of mass lies below the centre of the box, [T]."""
        return radius / 3 if self.shape == "triangle" else np.zeros(FRAMES, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A bar that makes a quarter turn, clockwise."""

    colour: str
    x: float
    y: float
    half: float
    """Half of its length, in pixels."""
    width: float
    """Half of its width, in pixels."""
    start: float
    """Radians; 0 is flat."""
    slide: tuple[float, float]
    """Unit vector: where `drift` takes it by the middle of the video, and back."""

    @property
    def zone(self) -> Float:
        """See `Action.zone`."""
        return shape("disc", self.x, self.y, self.half + 1)

    def draw(self, frames: Float, tempo: Float, execution: Execution) -> None:
        """See `Action.draw`."""
        angle = self.start + np.float32(np.pi / 2) * execution.extent * tempo
        away = execution.drift * np.sin(np.pi * tempo)
        if execution.duplicate:
            copy = bar(self.x, self.y, self.start, self.half, self.width)
            lay(
                frames[1:],
                execution.duplicate * np.broadcast_to(copy, frames[1:].shape[:3]),
                self.colour,
            )
        x, y = self.x + away * self.slide[0], self.y + away * self.slide[1]
        cover = bar(x, y, angle, self.half * (1 - execution.shrink * tempo), self.width)
        lay(frames, cover * (1 - execution.fade * tempo)[:, None, None], self.colour)

    def measure(self, evidence: Evidence, fixtures: tuple[Fixture, ...]) -> Measured:
        """See `Action.measure`."""
        shown = _without(evidence, self.colour, fixtures)
        area = 4 * self.half * self.width
        x, y = centroid(shown, 0.3 * area)
        progress = self._progress(shown, x, y)
        angle = self.start + np.float32(np.pi / 2) * progress
        template = bar(x, y, angle, self.half, self.width)
        agreed = np.minimum(shown, template).sum((1, 2))
        alike = agreed / np.maximum(np.maximum(shown, template).sum((1, 2)), 1e-6)
        # A whole bar at the angle found, whatever else there is: a copy is another query's matter.
        there = agreed / np.maximum(template.sum((1, 2)), 1e-6)
        seen = rise(there, 0.15, 0.4)
        away = np.hypot(x - self.x, y - self.y)
        parts = {
            "whole": worst(rise(alike, 0.55, 0.8)),
            "steps": steps(progress) * worst(seen),
            "place": worst(fall(away, 1.2, 4.0) * seen),
        }
        goal = fall(1 - float(progress[-1]), 0.04, 1.0) * seen[-1]
        return Measured(float(goal), parts)

    def _progress(self, shown: Float, x: Float, y: Float) -> Float:
        """The share of the quarter turn in every frame, [T].

        The angle along which a line through the middle shows most of the colour; of two good ones
        the further turned, since a copy left behind is not the bar.
        """
        radii = np.arange(2, self.half + 1.5, 1.0, dtype=np.float32)
        radii = np.concatenate([-radii, radii])
        angle = self.start + np.float32(np.pi / 2) * _ANGLES
        px = x[:, None, None] + np.cos(angle)[:, None] * radii  # [T, angles, radii]
        py = y[:, None, None] + np.sin(angle)[:, None] * radii
        line = _sampled(shown, px, py).mean(-1)  # [T, angles]
        weight = line / np.maximum(line.max(1, keepdims=True), 1e-3) + _PULL * _ANGLES
        best = weight.argmax(1)
        # The centre of the peak about the best angle: the line is wide, so its peak is flat.
        near = np.maximum(0, 1 - np.abs(_ANGLES - _ANGLES[best][:, None]) / 0.35)
        peak = near * np.maximum(line - 0.6 * line[np.arange(FRAMES), best][:, None], 0) ** 2
        return (peak * _ANGLES).sum(1) / np.maximum(peak.sum(1), 1e-6)


def _sampled(shown: Float, x: Float, y: Float) -> Float:
    """Values of `shown` [T, H, W] at points [T, ...], linear between pixels."""
    x, y = np.clip(x - 0.5, 0, SIZE - 1.001), np.clip(y - 0.5, 0, SIZE - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - left, y - top
    frame = np.arange(FRAMES).reshape(-1, *([1] * (x.ndim - 1)))
    upper = shown[frame, top, left] * (1 - fx) + shown[frame, top, left + 1] * fx
    lower = shown[frame, top + 1, left] * (1 - fx) + shown[frame, top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy
