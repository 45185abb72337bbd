"""Checkpoints known by name, and those whose configs lie in the Hub's cache."""

from typing import Any

import pytest

from vlmteach.options import read_config
from vlmteach.plan.clips import clip_of_config
from vlmteach.plan.counted import Counted, hollow_models
from vlmteach.plan.known import architecture, in_hub_cache

MARKS = ("model_index.json", *(f"{p}/config.json" for p in ("transformer", "vae", "text_encoder")))


def test_an_unknown_checkpoint_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'a/b'"):
        architecture("a/b")


@pytest.mark.parametrize("missing", [None, "vae/config.json"])
def test_the_cache_counts_only_where_all_configs_are_there(monkeypatch, tmp_path, missing):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, file: None if file == missing or file not in MARKS else str(tmp_path / file),
    )
    assert in_hub_cache("a/b") == (None if missing else tmp_path)


@pytest.mark.parametrize("preset", ["wan22-a14b", "hunyuan15", "wan22-internvl", "wan22-qwen25"])
def test_a_known_checkpoint_is_counted_without_its_weights(preset):
    words = ["--config", preset, "--clip.frames", "9", "--clip.max_pixels", "40000"]
    config = read_config([*words, "--teacher.frames", "3"])
    built = hollow_models(config)
    counted = Counted(built, config, clip_of_config(config, built))
    read = counted.read_one_frame()
    for cost in (counted.encode, counted.sample_rung, read):
        assert cost.flop > 1e11
    watching: Any = built.teacher
    network = watching.network
    teacher = sum(p.numel() for p in network.parameters())
    assert read.flop > 2 * 60 * (teacher - network.lm_head.weight.numel())


def test_a_path_is_no_hub_id():
    assert in_hub_cache("no/such/folder") is None
