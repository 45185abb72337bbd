"""The guard: what optimisation against a judge may destroy in a clip, measured against its base.

Four measures of how a clip looks, and two drifts from the base; neither a teacher nor a rule has a
part in them. A fit whose teacher is more content while the guard falls gets a warning: somebody
should look. It is no verdict: on the miniature, where the limits were chosen, its warnings were no
better than chance on tasks that had no say (`python -m benchmarks.mini.guard`), and nothing is
claimed beyond it.

Frames are [T, 3, H, W]: uint8, or float in [0, 1]. All measures are means over pixels and frames,
so that clips of any size and length have them. Frames whose shorter side is over `SIDE` pixels are
looked at smaller, as means of 2 x 2, 3 x 3, ... pixels: it is what one sees of a clip, and takes a
second in place of ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach.record import read_object, write_json
from vlmteach.rows import BASE, CLIP, GUARD
from vlmteach.video import read_video

if TYPE_CHECKING:
    from torch import Tensor

EDGE = 0.1
"""Of a full step from black to white: the least gradient that counts as an edge."""
BINS = 8
"""Of a colour channel."""
SIDE = 256
"""Pixels of a frame's shorter side at most, as it is measured."""
STILL = 0.05
"""Most that a channel of a still pixel changes over the base clip."""

RISE = 0.1
"""By how much the teacher's least P(yes) rises at least where the guard may warn."""
LIMITS: dict[str, float] = {
    "edge_density": 0.18,
    "colour_entropy": 0.21,
    "motion_energy": 1.6,
    "sharpness": 0.3,
    "first_drift": 0.02,
    "still_drift": 0.066,
}
"""Measure -> the most octaves that it may change either way against the base, and the most drift.
Chosen by `python -m benchmarks.mini.guard` on one half of tuning tasks of the miniature; on the
other half they told nothing of what the rules reject (benchmarks/LOG.md)."""
LEAST_DRIFT = 0.02
"""No limit of a drift is lower: what decoding and compression alone may bring about."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a clip looks."""

    edge_density: float
    """Share of pixels at an edge, 0..1: |(Sx, Sy)| / 4 >= `EDGE`, with Sx and Sy the Sobel
    responses of the luma Y = 0.299 R + 0.587 G + 0.114 B. A measure of clutter (Rosenholtz et al.,
    Measuring visual clutter, 2007)."""
    colour_entropy: float
    """Bits, 0..9: Shannon's entropy -sum p log2 p of a frame's histogram over 8 x 8 x 8 colours,
    mean over frames."""
    motion_energy: float
    """Mean of (x[t + 1] - x[t])^2 over pixels, channels and pairs of frames, 0..1; 0 of one
    frame."""
    sharpness: float
    """Variance over a frame of the luma's Laplacian (four neighbours), mean over frames, 0..16
    (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000)."""


LOOKS = tuple(field.name for field in fields(Look))
DRIFTS = ("first_drift", "still_drift")
MEASURES = (*LOOKS, *DRIFTS)
FLOORS = dict(zip(LOOKS, (1e-3, 1e-2, 1e-4, 1e-4), strict=True))
"""Added to both sides of a ratio, in the measure's unit: what compression alone brings about, so
that nothing over nothing is 1."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A clip beside its base."""

    base: Look
    clip: Look
    first_drift: float
    """Of the first frame, 0..1: the root of the mean squared difference to the base's."""
    still_drift: float
    """Of what the base leaves untouched, 0..1: the same over all frames, of the pixels that stay
    still in the base clip (each channel's largest value minus its smallest is at most `STILL`); 0
    where none does. A task may ask for change there, so the right clip may have some, too. As the
    background's preservation of edited pictures (PIE-Bench, arXiv 2310.01506), with the base's
    stillness in place of a mask by hand."""
    still_share: float
    """Of the pixels, those that stay still in the base clip, 0..1."""

    def ratio(self, name: str) -> float:
        """The clip's measure over the base's, each with its floor: 1 where both are the same."""
        floor = FLOORS[name]
        return (getattr(self.clip, name) + floor) / (getattr(self.base, name) + floor)

    def change(self, name: str) -> float:
        """How far a measure went, at least 0: of a look, octaves up or down; of a drift, itself."""
        return abs(math.log2(self.ratio(name))) if name in LOOKS else getattr(self, name)


@dataclass(frozen=True, slots=True)
class Guarded:
    """What `guard.json` says."""

    guard: Guard
    before: float | None
    """The teacher's least P(yes) of any query at the first reading, 0..1; None without any."""
    after: float | None
    """The same at the reading of the weights that were kept."""

    @property
    def warning(self) -> tuple[str, ...]:
        """The measures that fell while the teacher rose; empty: nothing to warn of."""
        return warning_of(self.guard, self.before, self.after)


def look_of(frames: Tensor) -> Look:
    """Measures a clip.

    Args:
        frames: [T, 3, H, W], T, H and W at least 1.

    Raises:
        ValueError: of another shape or type, or with pixels that are no numbers in [0, 1].
    """
    tally = _Tally()
    for frame in _seen(frames):
        tally.add(frame)
    return tally.look()


def guard_of(base: Tensor, clip: Tensor) -> Guard:
    """Measures a clip beside its base.

    Args:
        base: [T, 3, H, W].
        clip: of the same shape.

    Raises:
        ValueError: of different shapes, or as `look_of`.
    """
    if base.shape != clip.shape:
        raise ValueError(
            f"guard: got clips of {list(base.shape)} and {list(clip.shape)}, expected the same "
            "frames and size; compare a clip with its own base"
        )
    base, clip = _seen(base), _seen(clip)
    still = (base.amax(0) - base.amin(0) <= STILL).all(0)  # [H, W]
    count = still.count_nonzero().item()
    tallies = _Tally(), _Tally()
    first = drift = 0.0
    for number, (before, after) in enumerate(zip(base, clip, strict=True)):
        tallies[0].add(before)
        tallies[1].add(after)
        squares = (after - before).square().mean(0)  # [H, W]
        drift += squares[still].sum().item()
        first = first if number else squares.mean().item()
    return Guard(
        *(tally.look() for tally in tallies),
        first_drift=math.sqrt(first),
        still_drift=math.sqrt(drift / max(count * len(base), 1)),
        still_share=count / still.numel(),
    )


def guard_of_files(base: Path, clip: Path) -> Guard:
    """As `guard_of`, of two video files.

    Raises:
        ValueError: as there, or a file that is no video.
        OSError: one that cannot be read.
    """
    frames = (
        read_video(path)[0].permute(0, 3, 1, 2) for path in (base, clip)
    )  # T H W C -> T C H W
    return guard_of(*frames)


def fallen(guard: Guard, limits: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """The measures beyond their limits, `LIMITS` unless others are given."""
    limits = LIMITS if limits is None else limits
    return tuple(name for name in MEASURES if guard.change(name) > limits.get(name, math.inf))


def warning_of(
    guard: Guard,
    before: float | None,
    after: float | None,
    limits: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """The measures that fell while the teacher rose; empty: nothing to warn of.

    Args:
        guard: of the delivered clip.
        before, after: what the teacher said, as in `Guarded`.
        limits: in place of `LIMITS`.
    """
    rose = before is not None and after is not None and after - before >= RISE
    return fallen(guard, limits) if rose else ()


def keep_guard(folder: Path, before: float | None, after: float | None) -> None:
    """Measures an instance's `clip.mp4` beside its `base.mp4` and writes `guard.json`.

    A clip that cannot be measured leaves none, and is none the worse for it.

    Args:
        folder: the instance's.
        before, after: as in `Guarded`.
    """
    path = folder / GUARD
    path.unlink(missing_ok=True)  # of an earlier clip
    with suppress(ValueError, OSError):
        guard = guard_of_files(folder / BASE, folder / CLIP)
        write_json(path, Guarded(guard, before, after))


def read_guard(folder: Path) -> Guarded | None:
    """What an instance's `guard.json` says; None where it has none, or one that is broken."""
    told = read_object(folder / GUARD)
    guard = guard_from_json(told.get("guard")) if told is not None else None
    if told is None or guard is None:
        return None
    said = [told.get(name) for name in ("before", "after")]
    before, after = (value if _is_number(value) else None for value in said)
    return Guarded(guard, before, after)


def guard_from_json(told: object) -> Guard | None:
    """A guard as a record has it; None where it is not as it was written."""
    if not isinstance(told, Mapping):
        return None
    looks = [told.get(name) for name in ("base", "clip")]
    rest = {name: told.get(name) for name in (*DRIFTS, "still_share")}
    for given, names in (*((look, LOOKS) for look in looks), (rest, tuple(rest))):
        if not (isinstance(given, Mapping) and all(_is_number(given.get(n)) for n in names)):
            return None
    base, clip = (Look(**{name: float(look[name]) for name in LOOKS}) for look in looks)  # type: ignore[index]
    return Guard(base, clip, **{name: float(value) for name, value in rest.items()})  # type: ignore[arg-type]


class _Tally:
    """The sums of a `Look`, frame by frame."""

    def __init__(self) -> None:
        self.frames = 0
        self.sums = [0.0] * len(LOOKS)
        self.last: Tensor | None = None

    def add(self, pixels: Tensor) -> None:
        """Takes the next frame, [3, H, W] in [0, 1]."""
        luma = _luma(pixels)
        found = (
            (_gradient_squared(luma) >= EDGE**2).count_nonzero().item() / luma.numel(),
            _entropy(pixels),
            0.0 if self.last is None else (pixels - self.last).square().mean().item(),
            _laplacian(luma).var(correction=0).item(),
        )
        self.sums = [a + b for a, b in zip(self.sums, found, strict=True)]
        self.last = pixels
        self.frames += 1

    def look(self) -> Look:
        """The means over what was taken."""
        edges, bits, motion, sharpness = self.sums
        n = self.frames
        return Look(edges / n, bits / n, motion / max(n - 1, 1), sharpness / n)


def _is_number(value: object) -> bool:
    """Whether it is what a measure may be: 0 to 16."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 16


def _check(frames: Tensor) -> None:
    import torch

    whole = frames.dtype == torch.uint8
    shaped = frames.ndim == 4 and frames.shape[1] == 3 and 0 not in frames.shape
    if not shaped or not (whole or frames.is_floating_point()):
        raise ValueError(
            f"guard: got {frames.dtype} {list(frames.shape)}, expected uint8 or float [T, 3, H, W]"
            " with at least one frame"
        )
    if not whole and not ((frames >= 0) & (frames <= 1)).all():  # NaN is neither
        raise ValueError("guard: got pixels beyond 0..1, expected none; clamp them")


def _seen(frames: Tensor) -> Tensor:
    """[T, 3, H, W] as they are measured: float32 in [0, 1], no larger than `SIDE` asks.

    Raises:
        ValueError: as `look_of`.
    """
    import torch
    from torch.nn.functional import avg_pool2d

    _check(frames)
    factor = -(-min(frames.shape[2:]) // SIDE)

    def smaller(frame: Tensor) -> Tensor:
        unit = frame.float() / 255 if not frame.is_floating_point() else frame.float()
        return unit if factor == 1 else avg_pool2d(unit, factor)

    return torch.stack([smaller(frame) for frame in frames])  # a float copy of all is gigabytes


def _luma(pixels: Tensor) -> Tensor:
    """[3, H, W] -> [H, W], by BT.601."""
    red, green, blue = pixels
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _padded(luma: Tensor) -> Tensor:
    """[H, W] -> [H + 2, W + 2], the edge repeated."""
    from torch.nn.functional import pad

    return pad(luma[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]


def _gradient_squared(luma: Tensor) -> Tensor:
    """[H, W] -> the squared length of Sobel's gradient, [H, W]; a step from 0 to 1 has 1."""
    wide = _padded(luma)
    down = wide[2:] - wide[:-2]  # [H, W + 2]
    right = wide[:, 2:] - wide[:, :-2]  # [H + 2, W]
    across = (right[:-2] + 2 * right[1:-1] + right[2:]) / 4
    along = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    return across.square() + along.square()


def _laplacian(luma: Tensor) -> Tensor:
    """[H, W] -> [H, W]."""
    wide = _padded(luma)
    around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
    return around - 4 * luma


def _entropy(pixels: Tensor) -> float:
    """Bits of the colours of [3, H, W]."""
    import torch

    red, green, blue = (pixels * BINS).to(torch.int32).clamp_(max=BINS - 1)
    counts = ((red * BINS + green) * BINS + blue).flatten().bincount().tolist()
    shares = [count / red.numel() for count in counts if count]
    return -sum(share * math.log2(share) for share in shares) + 0.0  # one colour: 0, not -0
