"""An update as it is practised beside ours: where they are the same; seen where they are not."""

import dataclasses
import itertools

import pytest
import torch

from benchmarks.speed import case, practice
from benchmarks.speed.__main__ import parser

CPU = torch.device("cpu")
WORDS = ["--config", "wan22-turbo", "--clip.frames", "5", "--teacher.frames", "3"]


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(practice.MIDDLING["transformer"], "num_layers", 3)
    monkeypatch.setattr(practice, "MIDDLING_CLIP", {"height": 32, "width": 64})
    return practice.middling(case.read_command(parser(), [*WORDS, "--lora.blocks", "1"])[1])


def test_each_way_is_the_one_above_it_with_one_change():
    ways = [dataclasses.asdict(way) for way in practice.ways()]
    for above, way in itertools.pairwise(ways):
        changed = {k for k in way if way[k] != above[k]} - {"name", "same"}
        assert len(changed) == 1, way["name"]
        # Another decoder and another adapter compute something else; nothing else does.
        other = changed <= {"targets", "last"} or way["frames"] == "all"
        assert way["same"] == (not other), way["name"]


def test_what_is_the_same_is_equal_and_each_lever_costs_less(config):
    equal, found = practice.measure(config, repeats=1)
    assert len(equal) == sum(way.same for way in practice.ways())
    tflop = [row.tflop for row in found]
    assert all(above >= below for above, below in itertools.pairwise(tflop))
    assert found[0].kept_all_mib > found[1].kept_all_mib > found[-1].kept_all_mib
    assert found[-1].kept_mib == found[-1].kept_all_mib  # nothing is recomputed in ours
    assert all(row.milliseconds for row in found)
    assert practice.markdown(found).count("\n") == len(found) + 1


def test_another_loss_is_seen(config):
    packed, own = (way for way in practice.ways() if way.packed and way.targets == "all_linear")
    other = dataclasses.replace(config, fit=dataclasses.replace(config.fit, goal_weight=0.9))
    updates = [
        practice.Update(packed, config, CPU, full_size=False),
        practice.Update(own, other, CPU, full_size=False),
    ]
    with pytest.raises(AssertionError, match="adapter's layer as one product: loss off by"):
        practice.check_equal(updates)


def test_other_families_are_refused(config):
    other = dataclasses.replace(config.teacher, family="internvl")
    with pytest.raises(ValueError, match="expected wan and qwen3_vl"):
        list(practice.report(dataclasses.replace(config, teacher=other), 1, full_size=False))
