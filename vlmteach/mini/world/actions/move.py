"""A shape that moves along a path of straight pieces."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from vlmteach.mini.world.draw import grid, lay, shape, widened
from vlmteach.mini.world.evidence import Evidence, fall, rise, steps, worst
from vlmteach.mini.world.types import FRAMES, SIZE, Execution, Fixture, Float, Measured

_TOLERANCE = 0.6
"""Pixels from the end of the path that still count as its end."""
_FULL = 0.85
"""Share of the mover that is as dense as all of it: it may be half over something dark."""
_PULL = 0.3
"""How much of a whole object a way as long as the image outweighs, where two could be the mover."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A shape that moves from the first to the last point of a path."""

    shape: str
    colour: str
    radius: float
    path: Float
    """[P, 2]: x and y of the corners."""
    sag: tuple[float, float]
    """Unit vector: where `drift` goes, and comes back from."""
    wall: Fixture | None = None
    """What it must not touch."""
    wall_box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Left, top, right and bottom of the wall."""
    target: Fixture | None = None
    """What marks the end; without it in the last frame, nothing has been reached."""

    @property
    def zone(self) -> Float:
        """See `Action.zone`."""
        at = self._at(np.linspace(0, 1, 25, dtype=np.float32))
        return shape(self.shape, at[:, 0], at[:, 1], self.radius).max(0)

    def _lengths(self) -> Float:
        """Way from the start to each corner, [P]."""
        pieces = np.hypot(*np.diff(self.path, axis=0).T)
        return np.concatenate([[0], np.cumsum(pieces)]).astype(np.float32)

    def _at(self, progress: Float) -> Float:
        """Points of the path at these shares of its length, [T, 2]."""
        way = self._lengths()
        columns = [np.interp(progress * way[-1], way, self.path[:, i]) for i in (0, 1)]
        return np.stack(columns, axis=1).astype(np.float32)

    def draw(self, frames: Float, tempo: Float, execution: Execution) -> None:
        """See `Action.draw`."""
        at = self._at(execution.extent * tempo)
        at = at + execution.drift * np.sin(np.pi * tempo)[:, None] * np.array(self.sag, np.float32)
        if execution.duplicate:
            copy = shape(self.shape, self.path[0, 0], self.path[0, 1], self.radius)
            lay(
                frames[1:],
                execution.duplicate * np.broadcast_to(copy, frames[1:].shape[:3]),
                self.colour,
            )
        cover = shape(self.shape, at[:, 0], at[:, 1], self.radius * (1 - execution.shrink * tempo))
        lay(frames, cover * (1 - execution.fade * tempo)[:, None, None], self.colour)

    def measure(self, evidence: Evidence, fixtures: tuple[Fixture, ...]) -> Measured:
        """See `Action.measure`."""
        hidden = np.zeros((SIZE, SIZE), np.float32)
        for fixture in fixtures:
            if fixture.colour == self.colour:
                hidden = np.maximum(hidden, widened(fixture.mask))
        shown = evidence.of(self.colour) * (1 - hidden)
        place = self._track(shown)
        near = _window(place, self.radius + 1.5)
        template = shape(self.shape, place[:, 0], place[:, 1], self.radius)
        area = float(shape(self.shape, SIZE / 2, SIZE / 2, self.radius).sum())
        inside = shown * near
        agreed = np.minimum(inside, template).sum((1, 2))
        either = np.maximum(inside, template).sum((1, 2))
        alike = agreed / np.maximum(either, 1e-6)
        stray = (shown * (1 - near)).sum((1, 2)) / area
        progress, aside = self._project(place)
        length = float(self._lengths()[-1])
        left = (1 - progress[-1]) * length + aside[-1]
        goal = fall(left, _TOLERANCE, length) * rise(alike[-1], 0.1, 0.3)
        if self.target is not None:
            goal = goal * rise(evidence.kept([self.target.colour], self.target.mask)[-1], 0.4, 0.7)
        seen = rise(alike, 0.1, 0.3)
        parts = {
            "whole": worst(rise(alike, 0.34, 0.6) * fall(stray, 0.1, 0.5)),
            "steps": steps(progress) * worst(seen),
            "line": worst(fall(aside, 1.3, 4.5) * seen),
        }
        if self.wall is not None:
            kept = rise(evidence.kept([self.wall.colour], self.wall.mask), 0.45, 0.75)
            parts["wall"] = worst(fall(self._depth(place), 0.5, 3.0) * kept * seen)
        return Measured(float(goal), parts)

    def _track(self, shown: Float) -> Float:
        """The centre of the mover in every frame, [T, 2].

        The densest spot of its colour is taken, of equally dense ones the one further on: a copy
        left behind is not the mover. The centre of mass about that spot makes it exact.
        """
        x, y = grid()
        side = 2 * ceil(self.radius) + 1
        dense = _box_sum(shown, side)
        full = _FULL * float(shape(self.shape, SIZE / 2, SIZE / 2, self.radius).sum())
        done, beside = self._project(np.stack([x.ravel(), y.ravel()], axis=1))
        left = ((1 - done) * self._lengths()[-1] + beside).reshape(SIZE, SIZE) / SIZE
        best = (np.minimum(dense / full, 1) - _PULL * left).reshape(FRAMES, -1).argmax(1)
        place = np.stack([best % SIZE + 0.5, best // SIZE + 0.5], axis=1).astype(np.float32)
        for reach in (self.radius + 1.0, self.radius + 0.5):
            near = shown * _window(place, reach)
            mass = near.sum((1, 2)) + 1e-3
            middle = np.stack([(near * x).sum((1, 2)), (near * y).sum((1, 2))], axis=1)
            place = (middle + 1e-3 * place) / mass[:, None]
        # A triangle's centre of mass lies below the centre of its box.
        return place - np.array((0, self.radius / 3 if self.shape == "triangle" else 0), np.float32)

    def _project(self, place: Float) -> tuple[Float, Float]:
        """Share of the path done and pixels beside it, each [T], for places [T, 2]."""
        way = self._lengths()
        start, piece = self.path[:-1], np.diff(self.path, axis=0)
        length = np.maximum(np.hypot(*piece.T), 1e-6)
        offset = place[:, None] - start  # [T, P - 1, 2]
        along = np.clip((offset * piece).sum(-1) / length, 0, length)
        foot = start + piece * (along / length)[..., None]
        beside = np.hypot(*np.moveaxis(place[:, None] - foot, -1, 0))
        best = beside.argmin(1)
        rows = np.arange(len(place))
        return (way[best] + along[rows, best]) / way[-1], beside[rows, best]

    def _depth(self, place: Float) -> Float:
        """Pixels by which the mover's round reaches into the wall, [T]."""
        left, top, right, bottom = self.wall_box
        dx = np.maximum(np.maximum(left - place[:, 0], place[:, 0] - right), 0)
        dy = np.maximum(np.maximum(top - place[:, 1], place[:, 1] - bottom), 0)
        return np.maximum(self.radius - np.hypot(dx, dy), 0)


def _window(place: Float, reach: float) -> Float:
    """1 within `reach` pixels of the places [T, 2] along both axes, with soft edges: [T, H, W]."""
    x, y = grid()
    dx = np.abs(x - place[:, :1, None])
    dy = np.abs(y - place[:, 1:, None])
    return np.clip(reach + 0.5 - np.maximum(dx, dy), 0, 1)


def _box_sum(shown: Float, side: int) -> Float:
    """Sum over the square of odd `side` about each pixel, [T, H, W]."""
    half = side // 2
    padded = np.pad(shown, ((0, 0), (half + 1, half), (half + 1, half)))
    sums = padded.cumsum(1).cumsum(2)
    return (
        sums[:, side:, side:]
        - sums[:, :-side, side:]
        - sums[:, side:, :-side]
        + sums[:, :-side, :-side]
    )
