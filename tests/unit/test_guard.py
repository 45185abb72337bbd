"""The guard: clips made by hand, the rule of its warning, and the file that it is kept in."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch.nn.functional import avg_pool2d

from vlmteach import guard
from vlmteach.guard import (
    DRIFTS,
    FLOORS,
    LOOKS,
    MEASURES,
    SIDE,
    Guard,
    Guarded,
    fallen,
    guard_of,
    keep_guard,
    look_of,
    read_guard,
    warning_of,
)
from vlmteach.rows import GUARD
from vlmteach.video import write_video


def scene(height=32, width=32, frames=6):
    """A red square that moves over a grid of thin grey lines, [T, 3, H, W]."""
    clip = torch.ones(frames, 3, height, width)
    clip[:, :, ::8] = 0.4
    clip[:, :, :, ::8] = 0.4
    for t in range(frames):
        clip[t, :, 4:10, 2 + 3 * t : 8 + 3 * t] = torch.tensor([1.0, 0, 0])[:, None, None]
    return clip


def blurred(clip):
    return avg_pool2d(clip, 3, stride=1, padding=1, count_include_pad=False)


def _noise(clip):
    return torch.rand(clip.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("clip", [scene(), (scene() * 255).round().byte(), scene(17, 40, 1)])
def test_a_clip_beside_itself_has_drifted_nowhere_and_changed_nothing(clip):
    found = guard_of(clip, clip.clone())
    assert [found.ratio(name) for name in LOOKS] == [1.0] * 4
    assert [found.change(name) for name in MEASURES] == [0.0] * 6
    assert [getattr(found, name) for name in DRIFTS] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("spoilt", "measure", "up"),
    [
        (blurred, "sharpness", False),
        (lambda c: 0.1 * c + 0.5, "edge_density", False),  # washed out
        (lambda c: 0.5 * c + 0.5 * _noise(c), "edge_density", True),
        (lambda c: c[:1].expand_as(c), "motion_energy", False),
        (lambda c: c * torch.tensor([1, 0.8] * 3).view(-1, 1, 1, 1), "motion_energy", True),
        (lambda c: c.where(c[:, 1:2] > 0, 1.0), "colour_entropy", False),  # nothing red any more
        (lambda c: 0.5 * c + 0.5 * _noise(c), "colour_entropy", True),
        (lambda c: (c - 0.5 * (_noise(c) > 0.9)).clamp(min=0), "sharpness", True),
    ],
)
def test_what_a_spoilt_clip_loses_or_gains(spoilt, measure, up):
    clip = scene()
    ratio = guard_of(clip, spoilt(clip)).ratio(measure)
    assert ratio > 1 if up else ratio < 1


def test_the_formulas_on_clips_whose_measures_are_known():
    flat = torch.full((3, 3, 8, 8), 0.5)
    assert look_of(flat) == guard.Look(0.0, 0.0, 0.0, 0.0)
    halves = torch.zeros(2, 3, 8, 8)
    halves[..., 4:] = 1  # a step from black to white: both columns beside it are edges
    halves[1] = 1 - halves[1]  # and all pixels turn over
    look = look_of(halves)
    assert look.edge_density == 2 / 8
    assert look.colour_entropy == 1.0
    assert look.motion_energy == 1.0
    assert look.sharpness == pytest.approx(2 / 8)  # the Laplacian is 1 and -1 there, else 0
    many = torch.zeros(1, 3, 8, 64)
    codes = torch.arange(512).view(8, 64)
    for channel, weight in enumerate((64, 8, 1)):
        many[0, channel] = (codes // weight % 8 + 0.5) / 8
    assert look_of(many).colour_entropy == pytest.approx(9)


def test_the_drifts_are_of_the_first_frame_and_of_still_pixels_alone():
    base = torch.zeros(4, 3, 8, 8)
    for t in range(4):
        base[t, :, :4] = t / 3  # the upper half gets brighter, the lower one stays
    clip = base.clone()
    clip[1:, :, :4] = 0.5
    assert (guard_of(base, clip).first_drift, guard_of(base, clip).still_drift) == (0.0, 0.0)
    assert guard_of(base, clip).still_share == 0.5
    clip = base.clone()
    clip[2:, :, 4:] = 0.6  # half of the frames of the still half
    assert guard_of(base, clip).still_drift == pytest.approx(0.6 / math.sqrt(2))
    clip[0] += 0.3
    assert guard_of(base, clip).first_drift == pytest.approx(0.3)
    restless = _noise(base)
    found = guard_of(restless, restless.flip(0))
    assert (found.still_share, found.still_drift) == (0.0, 0.0)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 3, 2), (9, 32, 48), (2, 65, 31)])
def test_clips_of_any_size_have_finite_measures(size):
    frames, height, width = size
    noise = _noise(torch.empty(frames, 3, height, width))
    found = guard_of(torch.zeros_like(noise), noise)
    assert all(math.isfinite(found.change(name)) for name in MEASURES)
    same = guard_of((noise * 255).byte(), (noise * 255).byte())
    assert same == guard_of((noise * 255).byte() / 255, (noise * 255).byte() / 255)


def test_larger_pictures_of_the_same_have_the_same_measures_but_for_edges():
    clip = _noise(torch.empty(3, 3, 8, 8))
    large = clip.repeat_interleave(2, 2).repeat_interleave(2, 3)
    small, big = look_of(clip), look_of(large)
    assert big.colour_entropy == pytest.approx(small.colour_entropy)
    assert big.motion_energy == pytest.approx(small.motion_energy)


def test_frames_larger_than_they_are_looked_at_are_measured_as_means():
    large = torch.rand(2, 3, SIDE + 2, SIDE + 40, generator=torch.Generator().manual_seed(0))
    assert look_of(large) == look_of(avg_pool2d(large, 2))


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        (torch.zeros(2, 4, 8, 8), r"got torch.float32 \[2, 4, 8, 8\], expected uint8 or float"),
        (torch.zeros(0, 3, 8, 8), "at least one frame"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.full((2, 3, 8, 8), float("nan")), "beyond 0..1"),
        (torch.full((2, 3, 8, 8), 1.01), "beyond 0..1"),
    ],
)
def test_what_is_no_clip_is_refused(clip, told):
    with pytest.raises(ValueError, match=told):
        look_of(clip)
    with pytest.raises(ValueError, match="expected the same frames and size"):
        guard_of(scene(), scene(frames=5))


@pytest.mark.parametrize(
    ("before", "after", "warned"),
    [
        (0.2, 0.9, True),
        (0.2, 0.25, False),  # the teacher hardly rose
        (0.9, 0.2, False),
        (None, 0.9, False),
        (0.2, None, False),
    ],
)
def test_a_warning_needs_a_teacher_that_rises_and_a_guard_that_falls(
    before, after, warned, monkeypatch
):
    monkeypatch.setattr(guard, "LIMITS", {"sharpness": 0.5, "still_drift": 0.05})
    clip = scene()
    spoilt = guard_of(clip, blurred(clip) * 0.5)
    assert fallen(spoilt) == ("sharpness", "still_drift")
    assert warning_of(spoilt, before, after) == (fallen(spoilt) if warned else ())
    assert warning_of(guard_of(clip, clip), before, after) == ()


def test_every_limit_is_of_a_measure():
    assert set(guard.LIMITS) <= set(MEASURES)
    assert all(0 < limit < math.inf for limit in guard.LIMITS.values())
    assert set(FLOORS) == set(LOOKS)


@pytest.fixture
def folder(tmp_path):
    for name, clip in (("base", scene()), ("clip", blurred(scene()))):
        write_video(tmp_path / f"{name}.mp4", (clip * 255).byte().permute(0, 2, 3, 1), 8)
    return tmp_path


def test_a_finished_instance_s_numbers_are_kept_beside_its_clips(folder):
    keep_guard(folder, 0.25, 0.75)
    found = read_guard(folder)
    assert found is not None
    assert (found.before, found.after) == (0.25, 0.75)
    assert found.guard.ratio("sharpness") < 0.8
    told = json.loads((folder / GUARD).read_text())
    assert told == asdict(Guarded(found.guard, 0.25, 0.75))


@pytest.mark.parametrize("bad", ["base", "clip"])
@pytest.mark.parametrize("content", [None, b"no video"])
def test_a_clip_that_cannot_be_measured_leaves_no_numbers_and_costs_nothing_else(
    folder, bad, content
):
    keep_guard(folder, 0.1, 0.9)
    (folder / f"{bad}.mp4").unlink()
    if content is not None:
        (folder / f"{bad}.mp4").write_bytes(content)
    keep_guard(folder, 0.1, 0.9)
    assert read_guard(folder) is None
    assert not (folder / GUARD).exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("guard",), [1]),
        (("guard", "base"), None),
        (("guard", "clip", "sharpness"), "<script>"),
        (("guard", "clip", "sharpness"), 10**400),
        (("guard", "still_drift"), -1),
        (("guard", "first_drift"), True),
    ],
)
def test_a_broken_file_says_nothing(folder, place, value):
    keep_guard(folder, 0.1, 0.9)
    told = json.loads((folder / GUARD).read_text())
    *way, last = place
    into = told
    for name in way:
        into = into[name]
    into[last] = value
    (folder / GUARD).write_text(json.dumps(told))
    assert read_guard(folder) is None
    assert isinstance(guard_of(scene(), scene()), Guard)
