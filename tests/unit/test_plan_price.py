"""A plan's choices, and what it adds up to."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from vlmteach.config import ClipConfig, Config, FitConfig, TeacherConfig
from vlmteach.plan import price, rates
from vlmteach.plan.clips import clip_of_config, clips_of
from vlmteach.plan.counted import Counted, hollow_models
from vlmteach.recompute import MODES

CONFIG = Config(
    clip=ClipConfig(frames=9, height=64, width=96),
    teacher=TeacherConfig(frames=4, frame_pixels=64 * 96),
    fit=FitConfig(checkpointing="auto", steps=7),
)
GPU = rates.Device("a device", 1e12, {"bfloat16": 1e12, "float32": 1e11}, 1e12, False)


@pytest.fixture(scope="module")
def hollow():
    return hollow_models(CONFIG)


@pytest.fixture(scope="module")
def counted(hollow):
    return Counted(hollow, CONFIG, clip_of_config(CONFIG, hollow))


@pytest.fixture(scope="module")
def roomy(counted):
    return price.plan(counted, GPU)


def with_room(counted, size):
    return price.plan(counted, replace(GPU, memory=1 + size / (1 - price.SPARE)))


def test_with_room_nothing_is_recomputed(roomy):
    assert (roomy.checkpointing, roomy.is_chosen, roomy.is_tiled) == ("none", True, False)
    assert roomy.fits
    assert roomy.peaks["none"] > roomy.peaks["selective"] > roomy.peaks["full"] > roomy.resident
    assert roomy.phase("update").times == 7
    assert roomy.seconds == sum(each.times * each.seconds for each in roomy.phases)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_mode_that_fits_is_chosen(counted, roomy, mode):
    assert with_room(counted, roomy.peaks[mode]).checkpointing == mode


def test_what_does_not_fit_says_so(counted, roomy):
    small = with_room(counted, roomy.resident)
    assert (small.checkpointing, small.fits, small.is_tiled) == ("full", False, True)


def test_processes_that_share_a_device_share_its_memory(hollow, counted, roomy):
    run = replace(CONFIG.run, instances_at_once=2)
    two = Counted(hollow, replace(CONFIG, run=run), counted.clip)
    room = 2 * roomy.peaks["none"] / (1 - price.SPARE)
    assert price.plan(two, replace(GPU, memory=1.01 * room)).checkpointing == "none"
    short = price.plan(two, replace(GPU, memory=0.99 * room))
    assert short.checkpointing == "selective"
    assert short.device.name == "a device, one of 2 processes"


def test_a_phase_takes_the_longer_of_computing_and_moving(counted):
    slow = price.plan(counted, replace(GPU, copy=1.0)).phase("update")
    assert slow.seconds == pytest.approx(slow.moved, rel=1e-9)
    flops = {"bfloat16": 1.0, "float32": 1.0}
    weak = price.plan(counted, replace(GPU, flops=flops)).phase("update")
    assert weak.seconds == pytest.approx(weak.flop, rel=1e-9)


def test_options_of_a_run_are_kept_and_are_phases(hollow, roomy):
    names = {each.name for each in roomy.phases}
    assert {"prefix", "update", "sampling", "sampling of the base", "write queries"} <= names
    config = replace(
        CONFIG,
        lora=replace(CONFIG.lora, init="gradient"),
        run=replace(CONFIG.run, base_video="none"),
        query=replace(CONFIG.query, source="generic"),
        fit=replace(CONFIG.fit, gradient="last", checkpointing="none"),
    )
    planned = with_room(Counted(hollow, config, roomy.clip), roomy.resident)
    assert (planned.checkpointing, planned.is_chosen, set(planned.peaks)) == (
        "none",
        False,
        {"none"},
    )
    others = {each.name for each in planned.phases}
    assert "start of the adapter" in others
    assert not {"sampling of the base", "write queries", "prefix"} & others


def test_auto_is_settled_by_the_device_at_hand(monkeypatch):
    monkeypatch.setattr(rates, "measure", lambda device: replace(GPU, memory=1.0))
    assert price.chosen(CONFIG, torch.device("cpu")) == "full"


def test_clips_of_a_tar_are_counted(hollow, tmp_path):
    for key, prompt in {"a": "Move the ball.", "b": "Move the box.", "c": ""}.items():
        (tmp_path / f"{key}.prompt.txt").write_text(prompt)
    Image.new("RGB", (64, 96)).save(tmp_path / "b.png")
    config = replace(CONFIG, clip=ClipConfig(frames=9, max_pixels=64 * 96))
    clips, refused = clips_of([str(tmp_path)], config, hollow)
    assert {(clip.height, clip.width): count for clip, count in clips.items()} == {
        (64, 96): 1,
        (96, 64): 1,
    }
    assert refused == 1
