"""An adapter at several scales: what is looked at, what is told, and what a broken file says."""

import json

import pytest
import torch

from vlmteach import guard
from vlmteach.record import write_json
from vlmteach.rows import SCALES
from vlmteach.scales import at_scales, read_scales, table_of


def clip(shade):
    frames = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    frames[:, :, 4:] = shade
    return frames, 8.0


@pytest.fixture
def scales():
    def teacher(frames, fps):
        assert fps == 8.0
        return frames.max().item() / 255, 0.9

    def judge(frames, fps):
        return (0.25,)

    return at_scales({1.0: clip(204), 0.0: clip(51)}, [teacher, judge], "checkpoint")


def test_each_clip_is_asked_about_and_measured_beside_that_of_scale_0(scales):
    at_0, at_1 = scales.scales
    assert (at_0.scale, at_1.scale) == (0.0, 1.0)
    assert (at_0.p_yes, at_1.p_yes, at_1.judge_p_yes) == ((0.2, 0.9), (0.8, 0.9), (0.25,))
    assert at_0.guard.ratio("sharpness") == 1.0
    assert at_1.guard.ratio("sharpness") == pytest.approx(16, rel=0.05)
    alone = at_scales({1.0: clip(204)}, [], None).scales[0]
    assert (alone.p_yes, alone.judge_p_yes, alone.guard) == ((), (), None)


def test_the_table_of_text(scales, monkeypatch):
    monkeypatch.setattr(guard, "LIMITS", {"still_drift": 0.1})
    head, *lines = table_of(scales).splitlines()
    assert head.split()[:3] == ["scale", "teacher", "judge"]
    assert lines[0].split() == ["0", "0.200", "0.250", *["1.00"] * 4, "0.000", "0.000"]
    assert lines[1].split()[:3] == ["1", "0.800", "0.250"]
    assert lines[1].endswith("  still_drift")
    nothing = table_of(at_scales({1.0: clip(204)}, [], None)).splitlines()[1]
    assert nothing.split() == ["1", *["-"] * 8]


def test_what_was_kept_is_read_back(scales, tmp_path):
    write_json(tmp_path / SCALES, scales)
    assert read_scales(tmp_path) == scales
    assert read_scales(tmp_path / "none") is None


@pytest.mark.parametrize(
    "spoilt",
    [
        {"scales": []},
        {"scales": 7},
        {"scales": [1]},
        {"scales": [{"scale": 1e400, "p_yes": [], "judge_p_yes": []}]},
        {"scales": [{"scale": "<b>", "p_yes": [], "judge_p_yes": []}]},
        {"scales": [{"scale": 1, "p_yes": [2], "judge_p_yes": []}]},
        {"scales": [{"scale": 1, "p_yes": [0.5], "judge_p_yes": None}]},
        {"scales": [{"scale": 1, "p_yes": [], "judge_p_yes": []}] * 2},
        {"scales": [{"scale": n, "p_yes": [], "judge_p_yes": []} for n in range(65)]},
    ],
)
def test_a_broken_file_says_nothing(spoilt, tmp_path):
    (tmp_path / SCALES).write_text(json.dumps(spoilt))
    assert read_scales(tmp_path) is None
