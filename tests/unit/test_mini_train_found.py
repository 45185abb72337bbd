"""Videos that fits find against a teacher: kept, labelled by the rules, found again alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vlmteach.mini.builtin import SHIPPED
from vlmteach.mini.train.teacher_found import Climber, Found
from vlmteach.mini.train.teacher_rows import Writer
from vlmteach.mini.world import FRAMES, SIZE, answers


@pytest.fixture(scope="module")
def climber():
    torch.set_num_threads(1)
    return Climber(SHIPPED, Writer(SHIPPED / "teacher").teacher)


@pytest.fixture(scope="module")
def folder(climber, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    Found(folder, before=0).collect(climber, 50, seed=3, count=1)
    return folder


def test_a_round_keeps_the_way_and_the_end_of_every_fit(folder, climber):
    found = Found(folder, before=51)
    assert [file.name for file in folder.iterdir()] == ["00000050.safetensors"]
    assert len(found.videos) == len(found.places) == 8
    assert found.videos[0].shape == (FRAMES, SIZE, SIZE, 3)
    assert len(set(found.places)) == 1
    assert (found.videos[0] != found.videos[-2]).any()


def test_a_round_is_a_function_of_seed_step_and_teacher(folder, climber, tmp_path):
    again = Found(tmp_path, before=0)
    told = again.collect(climber, 50, seed=3, count=1)
    assert set(told) == {"fooled", "gained"}
    for ours, theirs in zip(again.videos, Found(folder, before=51).videos, strict=True):
        assert np.array_equal(ours, theirs)


def test_rounds_that_will_be_made_again_do_not_count(folder):
    assert not Found(folder, before=50).videos


def test_examples_are_labelled_by_the_rules(folder):
    found = Found(folder, before=51)
    rng = np.random.default_rng(0)
    for _ in range(8):
        one = found.example(rng)
        assert one.kind == "found"
        assert one.labels == answers(one.task, one.video)
        assert 0 <= one.video.min() <= one.video.max() <= 1
