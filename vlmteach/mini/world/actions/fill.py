"""A region that takes on a colour, bit by bit: paint, a drawn frame, rising water."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmteach.mini.world.draw import colour, enclosed, grid, lay, shifted, widened
from vlmteach.mini.world.evidence import Evidence, fall, opened, rise, steps, worst
from vlmteach.mini.world.types import Execution, Fixture, Float, Measured


@dataclass(frozen=True, slots=True, eq=False)
class Fill:
    """A region that is coloured in a given order."""

    region: Float
    """Coverage [H, W] of what is coloured in the end."""
    order: Float
    """[H, W] in 0..1: when each pixel's turn comes."""
    length: float
    """Pixels that the paint's front passes: it is one of them wide."""
    colour: str
    before: str | None = None
    """The region's colour at the start; None for the ground."""
    spill: tuple[float, float] = (1.0, 0.0)
    """Unit vector: where `drift` takes the paint beyond the edge."""
    second: Float | None = None
    """Coverage [H, W] of what `duplicate` colours too, in its own order."""
    second_order: Float | None = None
    surface: tuple[float, float] | None = None
    """Left and right edge of a liquid: `drift` tilts its surface for a while instead."""

    @property
    def zone(self) -> Float:
        """See `Action.zone`."""
        return self.region

    def draw(self, frames: Float, tempo: Float, execution: Execution) -> None:
        """See `Action.draw`."""
        progress = execution.extent * tempo
        order = np.broadcast_to(self.order, frames.shape[:3])
        if self.surface is not None and execution.drift:
            order = order + self._tilt() * execution.drift * np.sin(np.pi * tempo)[:, None, None]
        painted = self.region * self._done(order, progress)
        if execution.duplicate and self.second is not None:
            assert self.second_order is not None
            turn = np.broadcast_to(self.second_order, frames.shape[:3])
            again = self.second * self._done(turn, progress)
            lay(frames, execution.duplicate * again, self.colour)
        if self.before is None:
            lay(frames, painted, self.colour)
        else:  # over its edge too, where it is a mixture with the ground
            frames += painted[..., None] * (colour(self.colour) - colour(self.before))
        if self.surface is None and execution.drift:
            way = [execution.drift * part for part in self.spill]
            lay(frames, shifted(painted, *way) * (1 - self.region), self.colour)

    def _done(self, order: Float, progress: Float) -> Float:
        """Opacity of the paint at each pixel, [T, H, W]."""
        edge = np.float32(1 / self.length)
        return np.clip((progress[:, None, None] * (1 + edge) - order) / edge, 0, 1)

    def _tilt(self) -> Float:
        """Change of `order` per pixel of height between the two sides, [H, W]."""
        assert self.surface is not None
        x, _ = grid()
        left, right = self.surface
        height = self.region.sum() / (right - left)
        return (x - (left + right) / 2) / (right - left) / height

    def measure(self, evidence: Evidence, fixtures: tuple[Fixture, ...]) -> Measured:
        """See `Action.measure`."""
        shown = evidence.of(self.colour)
        share = evidence.kept([self.colour], self.region)
        own = widened(self.region, 1)
        for fixture in fixtures:
            if fixture.colour == self.colour:
                own = np.maximum(own, widened(fixture.mask))
        area = float(self.region.sum())
        outside = shown * (1 - own)
        close = widened(self.region, 8)
        for fixture in fixtures:
            # The object under the paint is no neighbour of itself.
            apart = fixture.mask * (1 - own)
            close = close * (1 - widened(apart) if apart.sum() > 1 else 1)
        parts = {
            "steps": steps(share),
            "only": worst(fall(outside.sum((1, 2)) / area, 0.1, 0.5)),
        }
        if self.before is not None:
            kept = evidence.kept([self.before, self.colour], self.region)
            spilt = (outside * close).sum((1, 2)) / area
            whole = rise(kept, 0.45, 0.75) * fall(spilt, 0.08, 0.35)
            hole = enclosed(self.region)
            if hole.any():
                whole = whole * opened((shown + evidence.of(self.before))[:, hole].mean(1))
            parts["shape"] = worst(whole)
        if self.surface is not None:
            parts["level"] = worst(fall(self._slope(shown), 1.5, 5.0))
        return Measured(float(fall(1 - share[-1], 0.03, 1.0)), parts)

    def _slope(self, shown: Float) -> Float:
        """Pixels between the height of the liquid at its left and at its right side, [T]."""
        assert self.surface is not None
        left, right = (round(edge) for edge in self.surface)
        height = shown[:, :, left:right].sum(1)  # [T, H, W] -> [T, columns]
        third = max((right - left) // 3, 1)
        return np.abs(height[:, :third].mean(1) - height[:, -third:].mean(1)) * 1.5


def sweep(region: Float, dx: int, dy: int) -> Float:
    """An order [H, W] that crosses a region along an axis at an even rate of area, 0 to 1.

    Args:
        region: coverage [H, W].
        dx: 1 for left to right, -1 for right to left, 0 for up or down.
        dy: likewise, downwards.
    """
    lines = region.sum(0 if dx else 1)
    backwards = dx + dy < 0
    if backwards:
        lines = lines[::-1]
    before = np.cumsum(lines) - lines  # area that is done when a line's turn comes
    last = np.flatnonzero(lines > 0.1)[-1]
    order = np.clip(before / before[last], 0, 1)
    if backwards:
        order = order[::-1]
    return np.broadcast_to(order if dx else order[:, None], region.shape).astype(np.float32)


def around(x: float, y: float) -> Float:
    """An order [H, W] that goes clockwise about a point, from the top, 0 to 1."""
    px, py = grid()
    return ((np.arctan2(px - x, y - py) / (2 * np.pi)) % 1).astype(np.float32)
