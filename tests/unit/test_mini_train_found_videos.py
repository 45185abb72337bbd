"""Videos that fits find against a teacher: kept, labelled by the rules, found again alike."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mini.train.teacher import fits as teacher_fits
from benchmarks.mini.train.teacher.fits import Climber
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from benchmarks.mini.train.teacher.rows import Writer
from vlmteach.builtin.paths import SHIPPED
from vlmteach.mini.world import FRAMES, SIZE, answers, families, make


@pytest.fixture(scope="module")
def collect(tmp_path_factory):
    """Runs a round of three short fits into a folder; returns what it says."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("recipe")
    for stage, shipped in (
        ("wan", "wan"),
        ("taehv.safetensors", "taehv.safetensors"),
        ("vae", "wan/vae"),
    ):
        (out / stage).symlink_to(SHIPPED / shipped)
    writer = Writer(SHIPPED / "teacher")
    climber = Climber(out, writer)

    def run(found: FoundVideos):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(teacher_fits, "STEPS", 4)
            return found.collect(climber, writer.teacher.network, 50, seed=3, count=3)

    return run


@pytest.fixture(scope="module")
def folder(collect, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mini") / "found"
    collect(FoundVideos(folder, before=0))
    return folder


def test_a_round_keeps_the_way_and_the_end_of_every_fit(folder):
    found = FoundVideos(folder, before=51)
    assert [file.name for file in folder.iterdir()] == ["00000050.safetensors"]
    assert len(found.videos) == len(found.places) == 3 * 3  # steps 0 and 4, and the clip
    assert found.videos[0].shape == (FRAMES, SIZE, SIZE, 3)
    assert [found.places.count(place) for place in dict.fromkeys(found.places)] == [3, 3, 3]
    assert (found.videos[0] != found.videos[2]).any()
    for at, (place, seed) in enumerate(found.places):
        task = make(families()[place].name, "train", seed)
        assert np.abs(found.videos[at][0].astype(int) - task.first_frame).mean() < 12


def test_a_round_is_a_function_of_seed_step_and_teacher(folder, collect, tmp_path):
    again = FoundVideos(tmp_path, before=0)
    told = collect(again)
    assert set(told) == {"fooled", "gained"}
    for ours, theirs in zip(again.videos, FoundVideos(folder, before=51).videos, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_third_of_the_tasks_are_of_families_that_fooled_it(folder, collect, tmp_path):
    found = FoundVideos(tmp_path, before=0)
    names = [family.name for family in families()]
    found.fooled = [names.index("mix")]
    collect(found)
    first = [place for place, _ in found.places[::3]]
    assert first[0] == names.index("mix")
    assert first[1:] == [place for place, _ in FoundVideos(folder, before=51).places[::3]][1:]


def test_rounds_that_will_be_made_again_do_not_count(folder):
    assert not FoundVideos(folder, before=50).videos


def test_examples_are_labelled_by_the_rules(folder):
    found = FoundVideos(folder, before=51)
    rng = np.random.default_rng(0)
    for _ in range(8):
        one = found.example(rng)
        assert one.kind == "found"
        assert one.labels == answers(one.task, one.video)
        assert 0 <= one.video.min() <= one.video.max() <= 1
