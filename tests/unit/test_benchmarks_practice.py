"""An update as it is practised beside ours: where they are the same; seen where they are not."""

import dataclasses
import itertools

import pytest
import torch

from benchmarks.speed import case, practice, practice_report
from benchmarks.speed.__main__ import parser

CPU = torch.device("cpu")
WORDS = ["--config", "wan22-turbo", "--clip.frames", "5", "--teacher.frames", "3"]


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setitem(practice.MIDDLING["transformer"], "num_layers", 2)
    monkeypatch.setitem(practice.MIDDLING_TEACHER["text_config"], "num_hidden_layers", 2)
    shallow = {"depth": 2, "deepstack_visual_indexes": [0, 1]}
    for name, value in shallow.items():
        monkeypatch.setitem(practice.MIDDLING_TEACHER["vision_config"], name, value)
    monkeypatch.setattr(practice, "MIDDLING_CLIP", {"height": 32, "width": 64})
    config = case.read_command(parser(), [*WORDS, "--lora.blocks", "1"])[1]
    return practice.middling(config, tmp_path)


def test_each_way_is_the_one_above_it_with_one_change():
    ways = [dataclasses.asdict(way) for way in practice.ways()]
    for above, way in itertools.pairwise(ways):
        changed = {k for k in way if way[k] != above[k]} - {"name", "same"}
        assert len(changed) == 1, way["name"]
        # Another decoder and another adapter compute something else; nothing else does.
        other = changed <= {"targets", "last"} or way["frames"] == "all"
        assert way["same"] == (not other), way["name"]


def test_what_is_the_same_is_equal(config):
    equal = practice.check_equal(practice.built(config))
    assert len(equal) == sum(way.same for way in practice.ways())


def test_each_lever_costs_less(config):
    ways = practice.ways()
    found = practice_report.count(config, [ways[0], ways[3], ways[-2], ways[-1]], full_size=False)
    tflop = [row.tflop for row in found]
    assert all(above > below for above, below in itertools.pairwise(tflop))
    assert found[0].kept_all_mib > found[1].kept_all_mib > found[-1].kept_all_mib
    assert found[-1].kept_mib == found[-1].kept_all_mib  # nothing is recomputed in ours
    assert found[-2].kept_mib < found[-2].kept_all_mib
    assert practice_report.markdown(found).count("\n") == len(found) + 1


def test_time_is_that_of_each_update(config):
    way = practice.ways()[-1]
    update = practice.Update(way, config, CPU, full_size=False)
    before = update.models.lora.snapshot()
    (milliseconds,) = practice_report.timed([update], repeats=1)
    assert milliseconds > 0
    assert not torch.equal(before, update.models.lora.snapshot())


def test_another_loss_is_seen(config):
    packed, own = (way for way in practice.ways() if way.packed and way.targets == "all_linear")
    other = dataclasses.replace(config, fit=dataclasses.replace(config.fit, goal_weight=0.9))
    packed = dataclasses.replace(packed, same=False)
    first = practice.Update(packed, config, CPU, full_size=False)
    second = practice.Update(own, other, CPU, full_size=False, like=first)
    with pytest.raises(AssertionError, match="adapter's layer as one product: loss off by"):
        practice.check_equal([first, second])


def test_other_families_are_refused(config):
    other = dataclasses.replace(config.teacher, family="internvl")
    with pytest.raises(ValueError, match="expected wan and qwen3_vl"):
        list(practice_report.report(dataclasses.replace(config, teacher=other), 1, full_size=False))
