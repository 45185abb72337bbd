"""Videos with labels for the teacher: done well, done badly, blurred, blended, cheated.

A video under optimisation is nothing that an execution draws: it is a blurred mixture of outcomes.
So most of these are mixed and spoilt after they are drawn, and the rules read the label off the
pixels that the teacher sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world import (
    CHEATS,
    FRAMES,
    SIZE,
    Execution,
    Split,
    Task,
    answers,
    families,
    family,
    make,
    perform,
)
from vlmteach.mini.world.types import Float
from vlmteach.seeding import derive_seed

if TYPE_CHECKING:
    from numpy.random import Generator

KINDS = ("truth", "short", "flawed", "blend", "cheat", "patched", "other")
"""Where a video comes from, before it is spoilt."""
SHARES = (0.12, 0.27, 0.24, 0.19, 0.06, 0.09, 0.03)
_EASY_SHARES = (0.4, 0.0, 0.4, 0.0, 0.2, 0.0, 0.0)


_TWICE = (
    "sequence", "drop", "level", "match", "reach", "detour", "turn", "largest", "paint",
)  # fmt: skip
"""Families drawn twice as often: to judge them takes an eye for a pixel or two."""
_READ = ("sequence", "sequence", "drop", "mix", "paint", "largest")
"""Families drawn more often to be written about: their words are read off the image, or lack many
pairs in the train split."""


@dataclass(frozen=True, slots=True)
class Example:
    """One video and what the rules answer to its task's queries."""

    task: Task
    video: Float
    """[T, H, W, 3] in 0..1."""
    labels: tuple[float, ...]
    kind: str


def any_task(rng: Generator, split: Split, more: tuple[str, ...] = ()) -> Task:
    """A task of any family, the fine ones twice as often, those of `more` once more each time."""
    names = [item.name for item in families()] + list(_TWICE) + list(more)
    return make(names[int(rng.integers(len(names)))], split, int(rng.integers(2**40)))


def written_task(rng: Generator) -> Task:
    """A training task to write the queries of."""
    names = [item.name for item in families()] + list(_READ)
    return make(names[int(rng.integers(len(names)))], "train", int(rng.integers(2**40)))


def example(
    rng: Generator,
    split: Split,
    *,
    easy: bool = False,
    more: tuple[str, ...] = (),
    shares: tuple[float, ...] = SHARES,
) -> Example:
    """One example of a random family.

    Args:
        rng: the only source of chance.
        split: whose tasks.
        easy: a crisp video, done well, or with one strong flaw, or cheated.
        more: families that are to come more often.
        shares: of each of `KINDS`.
    """
    task = any_task(rng, split, more)
    kind = KINDS[int(rng.choice(len(KINDS), p=_EASY_SHARES if easy else shares))]
    video = _draw(task, kind, rng, easy)
    if not easy and rng.random() < 0.7:
        video = spoilt(video, rng)
    video = np.clip(video, 0, 1)
    return Example(task, video, answers(task, video), kind)


def examples(
    seed: int,
    step: int,
    count: int,
    *,
    easy: float,
    more: tuple[str, ...] = (),
    shares: tuple[float, ...] = SHARES,
    stage: str = "teacher",
) -> list[Example]:
    """The batch of a step: the same arguments give the same batch.

    Args:
        easy: share of easy examples.
        more: families that are to come more often.
        shares: of each of `KINDS`.
        stage: whose batch.
    """
    rng = np.random.default_rng(derive_seed(seed, f"train/{step}", stage))
    return [
        example(rng, "train", easy=index < easy * count, more=more, shares=shares)
        for index in range(count)
    ]


def grossly_flawed(task: Task, rng: Generator) -> Execution:
    """A random execution with one strong flaw."""
    name = str(rng.permutation(list(family(task.family).flaws))[0])
    value = 0.4 * float(rng.random())
    if name != "extent":
        value = (1 - value) * (8 if name == "drift" else 1)
    return Execution(**{name: value})


def flawed(task: Task, rng: Generator) -> Execution:
    """A random execution: one to three flaws of random strength."""
    known = list(family(task.family).flaws)
    picked = rng.permutation(known)[: 1 + int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    values: dict[str, float] = {}
    for name in picked:
        value = float(rng.random())
        if name == "extent":
            value = value if rng.random() < 0.4 else 0.5 + 0.5 * value
        elif name == "drift":
            value *= 8
        values[str(name)] = value
    return Execution(**values)


def short(task: Task, rng: Generator) -> Execution:
    """Carried out to 0.4 to 1 of the way, half of them with another flaw: where fits begin."""
    values = {"extent": 0.4 + 0.6 * float(rng.random())}
    others = [name for name in family(task.family).flaws if name != "extent"]
    if rng.random() < 0.5:
        name = others[int(rng.integers(len(others)))]
        values[name] = float(rng.random()) * (8 if name == "drift" else 1)
    return Execution(**values)


def _draw(task: Task, kind: str, rng: Generator, easy: bool) -> Float:
    truth = _float(task.truth)
    if kind == "truth":
        return truth
    if kind == "short":
        return _float(perform(task, short(task, rng)))
    if kind == "flawed":
        return _float(perform(task, (grossly_flawed if easy else flawed)(task, rng)))
    if kind == "blend":
        return _blend(task, rng)
    if kind == "cheat":
        names = list(CHEATS)
        base = task.truth if rng.random() < 0.6 else perform(task, flawed(task, rng))
        if rng.random() < 0.3:
            return _float(base)[_warped_time(rng)]
        return _float(CHEATS[names[int(rng.integers(len(names)))]](base))
    if kind == "patched":
        return _patched(_some(task, rng), rng)
    if kind == "other":
        names = [item.name for item in families()]
        other = make(names[int(rng.integers(len(names)))], task.split, int(rng.integers(2**40)))
        return _float(other.truth)
    raise ValueError(f"kind: got {kind!r}, expected one of {KINDS}; choose one of them")


def _some(task: Task, rng: Generator) -> Float:
    """The truth, a flawed execution, or the first frame at rest."""
    chance = rng.random()
    if chance < 0.35:
        return _float(task.truth)
    if chance < 0.5:
        return np.repeat(_float(task.truth[:1]), FRAMES, axis=0)
    return _float(perform(task, flawed(task, rng)))


def _blend(task: Task, rng: Generator) -> Float:
    """Two or three executions laid over each other: what an uncertain model predicts."""
    video = _some(task, rng)
    for _ in range(1 + int(rng.random() < 0.3)):
        weight = np.float32(rng.random())
        chance = rng.random()
        if chance < 0.3:  # by place
            weight = _field(rng, 4)[None, :, :, None]
        elif chance < 0.5:  # by time
            ends = rng.random(2).astype(np.float32)
            weight = np.linspace(ends[0], ends[1], FRAMES, dtype=np.float32)[:, None, None, None]
        video = video + weight * (_some(task, rng) - video)
    return video


def _patched(video: Float, rng: Generator) -> Float:
    """A rectangle of the video is copied to another place, for some of the frames."""
    video = video.copy()
    for _ in range(1 + int(rng.random() < 0.4)):
        h, w = rng.integers(4, 14, 2)
        y, x = rng.integers(0, SIZE - h + 1), rng.integers(0, SIZE - w + 1)
        v, u = rng.integers(0, SIZE - h + 1), rng.integers(0, SIZE - w + 1)
        start = int(rng.integers(1, FRAMES))
        source = video[int(rng.integers(FRAMES))] if rng.random() < 0.5 else video[start:]
        piece = source[..., y : y + h, x : x + w, :].copy()
        opacity = np.float32(1 if rng.random() < 0.6 else rng.random())
        video[start:, v : v + h, u : u + w] *= 1 - opacity
        video[start:, v : v + h, u : u + w] += opacity * piece
    return video


def _warped_time(rng: Generator) -> np.ndarray:
    """Frame indices that go on at an uneven tempo, and sometimes back."""
    pace = rng.random(FRAMES) ** 3
    way = np.cumsum(pace) - pace[0]
    indices = np.rint(way / max(way[-1], 1e-6) * (FRAMES - 1)).astype(int)
    if rng.random() < 0.4:
        turn = int(rng.integers(2, FRAMES))
        indices[turn:] = indices[turn - 1] - np.arange(1, FRAMES - turn + 1) * rng.integers(3)
    return np.clip(indices, 0, FRAMES - 1)


def spoilt(video: Float, rng: Generator) -> Float:
    """What decoders and optimisers do to a video: blur, blocks, noise, colour and time smeared."""
    first = video[:1].copy()
    steps: list[tuple[float, Callable[[Float], Float]]] = [
        (0.5, lambda v: _blurred(v, 0.3 + 1.2 * float(rng.random()) ** 2)),
        (0.25, lambda v: _blocks(v, float(rng.random()))),
        (0.2, lambda v: _smeared(v, float(rng.random()))),
        (0.2, lambda v: v + np.float32(0.8 * rng.random()) * (v - _blurred(v, 0.8))),
        (0.3, lambda v: v + np.float32(0.25 * rng.random() ** 2) * _noise(rng, v.shape)),
        (0.3, lambda v: v + np.float32(0.3 * rng.random() ** 2) * _smooth_noise(rng)),
        (0.2, lambda v: _tinted(v, rng)),
    ]
    for chance, step in steps:
        if rng.random() < chance:
            video = step(video)
    if rng.random() < 0.7:  # a given first frame stays as it was
        video = np.concatenate([first, video[1:]])
    return video


def _blurred(video: Float, sigma: float) -> Float:
    x = np.arange(SIZE)
    kernel = np.exp(-((x[:, None] - x) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    shape = video.shape  # [T, H, W, C]: along H as [H, W C], then along W as [W, C]
    video = kernel @ video.reshape(shape[0], SIZE, -1)
    return (kernel @ video.reshape(-1, SIZE, shape[-1])).reshape(shape)


def _blocks(video: Float, share: float) -> Float:
    """Part of the video is replaced by its mean over blocks of 2 or 4 pixels."""
    side = 4 if share < 0.4 else 2
    cells = SIZE // side
    mean = video.reshape(FRAMES, cells, side, cells, side, 3).mean((2, 4))
    mean = mean.repeat(side, 1).repeat(side, 2)
    return video + np.float32(0.8 * share) * (mean - video)


def _smeared(video: Float, share: float) -> Float:
    """Frames of one latent (1 to 4, 5 to 8) move towards their mean."""
    out = video.copy()
    for group in (slice(1, 5), slice(5, 9)):
        out[group] += np.float32(share) * (video[group].mean(0) - video[group])
    return out


def _tinted(video: Float, rng: Generator) -> Float:
    gain = 1 + 0.15 * rng.standard_normal(3)
    shift = 0.05 * rng.standard_normal(3)
    return (video * gain + shift).astype(np.float32)


def _noise(rng: Generator, shape: tuple[int, ...]) -> Float:
    return rng.standard_normal(shape, dtype=np.float32)


def _smooth_noise(rng: Generator) -> Float:
    """Noise of 8 x 8 places and three times, drawn out to the whole video."""
    coarse = rng.standard_normal((3, 8, 8, 3), dtype=np.float32)
    coarse = coarse.repeat(4, 1).repeat(4, 2)
    coarse = _blurred(coarse, 1.5)
    at = np.minimum((np.arange(FRAMES) + 3) // 4, 2)
    return coarse[at]


def _field(rng: Generator, cells: int) -> Float:
    """Weights [H, W] in 0..1 that change smoothly from place to place."""
    coarse = rng.random((1, cells, cells, 1), dtype=np.float32)
    side = SIZE // cells
    fine = coarse.repeat(side, 1).repeat(side, 2)
    return np.clip(_blurred(_blurred(fine, 2.0), 2.0)[0, :, :, 0] * 2 - 0.5, 0, 1)


def _float(video: np.ndarray) -> Float:
    return video.astype(np.float32) / 255
