"""The rules of the miniature world: what the truth, flaws and cheats are worth."""

from itertools import pairwise

import numpy as np
import pytest

from vlmteach.mini.world import (
    CHEATS,
    COLOURS,
    FRAMES,
    SPLITS,
    STRICT_GOAL,
    STRICT_PART,
    Execution,
    answers,
    families,
    make,
    perform,
    score,
    table,
)

FAMILIES = families()
NAMES = [family.name for family in FAMILIES]
STRONG = {
    "extent": 0.5,
    "drift": 4.0,
    "duplicate": 1.0,
    "fade": 0.5,
    "shrink": 0.3,
    "disturb": 0.8,
    "late": 0.9,
}
"""Every flaw as a viewer would notice it."""


def tasks(name, n, splits=SPLITS):
    return [make(name, split, seed) for split in splits for seed in range(n)]


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each frame; video [T, H, W, 3], edges repeated."""
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (3, 3)
        padded = np.pad(video, pad, mode="edge")
        shifts = [np.take(padded, range(i, i + 32), axis=axis) for i in range(7)]
        video = np.tensordot(kernel, shifts, axes=1)
    return video


def generated(task, rng, *, sigma=0.0, noise=0.0, cast=0.0):
    """The truth as a video model would give it: blurred, noisy, with a colour cast; in 0..1."""
    video = task.truth / 255
    if sigma:
        video = blurred(video, sigma)
    video = video + rng.normal(0, noise, video.shape) + cast * rng.choice([-1, 1], 3)
    return np.clip(video, 0, 1).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_worth_one(name):
    for task in tasks(name, 70):
        scored = score(task, task.truth)
        assert scored.strict
        assert scored.goal == pytest.approx(1, abs=0.01)
        assert scored.process == scored.overall * 2 - scored.goal == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "harm",
    [
        {"sigma": 0.7},
        {"noise": 0.04},
        {"cast": 0.05},
        {"sigma": 0.7, "noise": 0.04},
        {"sigma": 0.7, "noise": 0.03, "cast": 0.03},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_a_blurred_and_noisy_truth_is_still_a_success(name, harm):
    rng = np.random.default_rng(0)
    for task in tasks(name, 3):
        scored = score(task, generated(task, rng, **harm))
        assert scored.strict, task.key
        assert scored.overall >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_float_video_scores_as_its_bytes(name):
    task = make(name, "test", 0)
    video = perform(task, Execution(extent=0.6))
    as_float = score(task, video.astype(np.float32) / 255)
    assert as_float.goal == pytest.approx(score(task, video).goal, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_succeeds(name, cheat):
    for task in tasks(name, 5):
        scored = score(task, CHEATS[cheat](task.truth))
        assert not scored.strict
        assert scored.process <= 0.1
        assert scored.overall <= 0.55
        if cheat in ("static", "reversed", "blank"):
            assert scored.goal <= 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_goal_grows_with_the_extent_and_strict_comes_only_near_the_end(name):
    extents = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
    for task in tasks(name, 3):
        scores = [score(task, perform(task, Execution(extent=extent))) for extent in extents]
        goals = [scored.goal for scored in scores]
        assert all(b >= a - 0.005 for a, b in pairwise(goals)), goals
        assert goals[0] <= 0.1
        assert 0.2 <= goals[3] <= 0.65
        assert [scored.strict for scored in scores[:-2]] == [False] * 6
        # An action that stops short is otherwise right.
        assert all(min(scored.process_parts) >= STRICT_PART for scored in scores[3:])


@pytest.mark.parametrize(
    ("name", "flaw"), [(family.name, flaw) for family in FAMILIES for flaw in family.flaws]
)
def test_a_flaw_lowers_what_it_should_and_nothing_else(name, flaw):
    family = next(f for f in FAMILIES if f.name == name)
    lowered = family.flaws[flaw]
    readings = {what: [] for what in ("goal", *family.parts)}
    for task in tasks(name, 6):
        scored = score(task, perform(task, Execution(**{flaw: STRONG[flaw]})))
        readings["goal"].append(scored.goal)
        for part, value in zip(family.parts, scored.process_parts, strict=True):
            readings[part].append(value)
    for what, values in readings.items():
        if what in lowered:
            assert np.mean(values) < STRICT_PART, (what, np.mean(values))
        else:
            floor = STRICT_GOAL if what == "goal" else STRICT_PART
            assert np.mean(values) > 0.95, (what, np.mean(values))
            assert min(values) > floor - 0.25, (what, min(values))


@pytest.mark.parametrize("flaw", ["drift", "duplicate", "fade", "disturb", "late"])
def test_process_falls_as_a_flaw_grows(flaw):
    for family in FAMILIES:
        if flaw not in family.flaws:
            continue
        top = 7.0 if flaw == "drift" else 1.0
        task = make(family.name, "test", 0)
        values = [
            score(task, perform(task, Execution(**{flaw: top * share}))).process
            for share in (0.0, 0.5, 0.75, 1.0)
        ]
        # What has failed stays failed; paint that runs on out of a ring's hole fills it no longer.
        fallen = [b <= a + 0.02 or max(a, b) < 0.7 for a, b in pairwise(values)]
        assert all(fallen), (family.name, values)
        assert values[-1] < 0.7


@pytest.mark.parametrize("name", NAMES)
def test_scores_have_no_cliffs(name):
    """A fiftieth of the way changes the goal score by no leap."""
    for task in tasks(name, 1, ["test"]):
        still = np.repeat(task.truth[:1], FRAMES, axis=0) / 255
        goals = [
            score(task, still + share * (task.truth / 255 - still)).goal
            for share in np.linspace(0, 1, 51)
        ]
        extents = [
            score(task, perform(task, Execution(extent=extent))).goal
            for extent in np.linspace(0, 1, 51)
        ]
        assert np.abs(np.diff(extents)).max() <= 0.12
        assert goals[0] <= 0.1
        assert goals[-1] >= 0.98


@pytest.mark.parametrize("name", NAMES)
def test_answers_follow_the_queries(name):
    task = make(name, "tuning", 1)
    assert answers(task, task.truth) == pytest.approx([1] * len(task.queries), abs=0.03)
    half = perform(task, Execution(extent=0.5))
    scored, labels = score(task, half), answers(task, half)
    assert labels[0] == pytest.approx(scored.goal ** (np.log(0.5) / np.log(0.9)))
    powers = [part ** (np.log(0.5) / np.log(0.75)) for part in scored.process_parts]
    assert labels[1:] == pytest.approx(powers)
    assert len(labels) == len(task.queries)
    assert 0 < labels[0] < scored.goal


def test_a_mover_that_vanishes_has_not_arrived():
    task = make("reach", "train", 0)
    video = task.truth.copy()
    video[-1] = make("reach", "train", 1).first_frame[0, 0]
    assert score(task, video).goal == 0


def test_a_mover_of_the_wrong_colour_is_not_the_mover():
    task = make("reach", "train", 0)
    video = task.truth.copy()
    colour = np.rint(255 * np.array(COLOURS[task.cue[0]]))
    video[2:][(video[2:] == colour).all(-1)] = (25, 25, 230)
    assert score(task, video).process < 0.2


def test_reaching_counts_only_where_the_frame_still_stands():
    task = make("reach", "train", 0)
    video = task.truth.copy()
    dark = video[-1].max(-1) < 60
    video[-1][dark] = 235
    assert score(task, video).goal < 0.1


def test_a_video_through_the_wall_does_not_avoid_it():
    task = make("detour", "test", 0)
    assert score(task, perform(task, Execution(drift=8.0))).process_parts[2] < 0.6


@pytest.mark.parametrize(("name", "part"), [("paint", 0), ("largest", 0), ("grow", 0)])
def test_a_ring_that_becomes_a_disc_has_not_kept_its_shape(name, part):
    rings = [task for task in tasks(name, 40) if task.cue[1] == "ring"]
    assert len(rings) > 5
    for task in rings:
        colour = np.array(COLOURS[task.cue[0]]) * 255
        video = task.truth.copy()
        shown = np.abs(task.truth[-1] - colour).max(-1) < 40
        rows, columns = shown.nonzero()
        top, left = rows.min(), columns.min()
        bottom, right = rows.max() + 1, columns.max() + 1
        y, x = np.indices(shown.shape)
        middle = np.hypot(y - (top + bottom - 1) / 2, x - (left + right - 1) / 2)
        for frame in range(6, FRAMES):
            video[frame][middle < (bottom - top) / 2 - 1.5] = colour
        scored = score(task, video)
        assert score(task, task.truth).process_parts[part] > 0.99
        assert scored.process_parts[part] < STRICT_PART
        assert not scored.strict


@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (9, 3, 32, 32)])
def test_a_video_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \[9, 32, 32, 3\]"):
        score(make("reach", "test", 0), np.zeros(shape, np.uint8))


def test_a_video_with_nan_is_refused():
    video = make("reach", "test", 0).truth / 255
    video[3, 3, 3, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        score(make("reach", "test", 0), video)


def test_the_table_has_a_row_per_family_and_a_column_per_cheat():
    lines = table("test", 2).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "truth" not in line]
    assert [row.split(" | ")[1] for row in rows] == NAMES
    assert all(row.count(" / ") == 2 * (1 + len(CHEATS)) for row in rows)
    assert all("1.00 / 1.00 / 1.00 (2)" in row for row in rows)
