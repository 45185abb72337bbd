"""What the Python entrance hands back: clips, and how they look in a notebook."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach.types import Outcome, Query, Reading
from vlmteach.video import FULL_CHROMA, write_video

if TYPE_CHECKING:
    from torch import Tensor

WIDTH, HEIGHT, MARGIN = 420, 150, 34
"""Of the loss curve, in CSS pixels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Made:
    """One clip and where it lies. A folder that was not named goes when the object does."""

    prompt: str
    frames: Tensor = field(repr=False)
    """The clip as delivered, uint8 [T, H, W, 3], RGB."""
    fps: float
    folder: Path
    """Holds `clip.mp4`, and after a solve all files of an instance."""
    outcome: Outcome

    def _repr_html_(self) -> str:
        return _page(self.prompt, _video("clip", self.frames, self.fps))


@dataclass(frozen=True, eq=False, kw_only=True)
class Solved(Made):
    """One instance solved."""

    base: Tensor | None = field(repr=False)
    """The clip without the adapter, uint8 [T, H, W, 3]; None where the method made none."""
    queries: tuple[Query, ...]
    """Q of them, as the teacher was asked; empty where it was not."""
    readings: tuple[Reading, ...] = field(repr=False)
    """Loss and P("Yes") per query, update by update; for best-of-N, candidate by candidate."""

    def _repr_html_(self) -> str:
        name = "base, surrogate" if self.outcome.base_video == "surrogate" else "base"
        base = "" if self.base is None else _video(name, self.base, self.fps)
        return _page(
            self.prompt,
            base + _video(self.outcome.method, self.frames, self.fps),
            _curve(self.readings, "update" if self.outcome.steps else "candidate"),
            _table(self.queries, self.readings, self._kept()),
        )

    def _kept(self) -> Reading | None:
        """The reading of what was delivered; the last where none is marked."""
        step = self.outcome.kept_step if self.outcome.steps else self.outcome.candidate
        marked = [reading for reading in self.readings if reading.step == step]
        return (marked or list(self.readings[-1:]) or [None])[0]


def _page(prompt: str, clips: str, *more: str) -> str:
    told = f'<p style="max-width:60em">{escape(prompt)}</p>'
    return f'<div>{told}<div style="display:flex;gap:1em">{clips}</div>{"".join(more)}</div>'


def _video(name: str, frames: Tensor, fps: float) -> str:
    """A clip inside the page; a small one in larger pixels, so that every browser decodes it."""
    factor = math.ceil(FULL_CHROMA / min(frames.shape[1:3]))
    large = frames.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, large, fps)
        data = base64.b64encode(path.read_bytes()).decode()
    return (
        '<figure style="margin:0">'
        f'<video src="data:video/mp4;base64,{data}" style="max-width:420px;min-width:192px" '
        "controls loop autoplay muted playsinline></video>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )


def _curve(readings: Sequence[Reading], unit: str) -> str:
    """The loss over the readings, as SVG; nothing where there are fewer than two."""
    points = [(reading.step, reading.loss) for reading in readings if math.isfinite(reading.loss)]
    if len(points) < 2:
        return ""
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    across = (WIDTH - 2 * MARGIN) / (last - first)
    up = (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
    line = " ".join(
        f"{MARGIN + (step - first) * across:.1f},{HEIGHT - MARGIN - (loss - low) * up:.1f}"
        for step, loss in points
    )
    foot = HEIGHT - MARGIN
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="loss" '
        'font-size="11" fill="currentColor">'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        f'<line x1="{MARGIN}" y1="{foot + 4}" x2="{WIDTH - MARGIN}" y2="{foot + 4}" '
        'stroke="currentColor" stroke-width="0.5"/>'
        f'<text x="0" y="{MARGIN}">{high:.3f}</text><text x="0" y="{foot}">{low:.3f}</text>'
        f'<text x="{MARGIN}" y="{foot + 18}">loss by {escape(unit)}, {first} to {last}</text>'
        "</svg>"
    )


def _table(queries: Sequence[Query], readings: Sequence[Reading], kept: Reading | None) -> str:
    """P("Yes") of each query, in the first reading and of what was delivered."""
    if not queries:
        return ""
    rows = []
    for number, query in enumerate(queries):
        seen = [
            f"{reading.p_yes[number]:.3f}" if reading and number < len(reading.p_yes) else "-"
            for reading in (readings[0] if readings else None, kept)
        ]
        cells = (query.role, query.text, *seen)
        rows.append("".join(f'<td style="text-align:left">{escape(c)}</td>' for c in cells))
    head = "".join(f"<th>{escape(c)}</th>" for c in ("role", "query", "P(yes) first", "kept"))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
