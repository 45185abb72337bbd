"""Numbers -> places on a drawing: what the templates turn into SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOW_BINS, HIGH_BINS = 5, 12


@dataclass(frozen=True)
class Axis:
    """A straight, or logarithmic, scale from values to pixels.

    Args:
        low, high: values at its ends; low < high, and above 0 where it is logarithmic.
        start, end: pixels at its ends.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies, pixels to a tenth; values beyond an end lie on it."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, about: int = 4) -> list[tuple[float, str]]:
        """(pixel, label) of round values."""
        if self.logarithmic:
            tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [m * 10.0**ten for ten in tens for m in (1, 2, 5)]
        else:
            step = _round_step((self.high - self.low) / about)
            first = math.ceil(self.low / step - 1e-9)
            found = [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        inside = [v for v in found if self.low * 0.999999 <= v <= self.high * 1.000001]
        return [(self(value), f"{value:.6g}") for value in inside]


def _round_step(step: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no smaller."""
    ten = 10.0 ** math.floor(math.log10(step))
    return next(m * ten for m in (1, 2, 5, 10) if m * ten >= step * 0.999999)


def axis_over(values: Iterable[float], start: float, end: float) -> Axis:
    """An axis from below the least to above the greatest value; logarithmic where they are
    positive and span more than a decade."""
    found = list(values) or [0.0]
    low, high = min(found), max(found)
    if low > 0 and high / low > 10:
        return Axis(low / 1.15, high * 1.15, start, end, logarithmic=True)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 0.1)
    low = 0.0 if 0 <= low < margin * 4 else low - margin
    return Axis(low, high + margin, start, end)


def polyline(
    x: Axis, y: Axis, across: Sequence[float], up: Sequence[float | None]
) -> tuple[str, ...]:
    """The `points` of the unbroken pieces of a curve; a None breaks it."""
    pieces: list[list[str]] = [[]]
    for a, b in zip(across, up, strict=True):
        if b is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{x(a):g},{y(b):g}")
    return tuple(" ".join(piece) for piece in pieces if piece)


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram or a bar chart."""

    label: str
    count: int


def bins(values: Sequence[int]) -> list[Bar]:
    """Whole numbers, 0 or more, in bins of equal width: one a bin where they span few."""
    if not values:
        return []
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / HIGH_BINS))
    if high - low < LOW_BINS:
        low = max(0, high - LOW_BINS + 1)
    counts = Counter((value - low) // width for value in values)
    return [Bar(_span(low + n * width, width), counts[n]) for n in range((high - low) // width + 1)]


def _span(first: int, width: int) -> str:
    return str(first) if width == 1 else f"{first}-{first + width - 1}"


def tally(words: Iterable[str]) -> list[Bar]:
    """How often each word occurs, most frequent first."""
    counts = Counter(words)
    return [
        Bar(word, n) for word, n in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]
