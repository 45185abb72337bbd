"""The families' real sizes, on the meta device: nothing is allocated."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from benchmarks.speed.full_size import ARCHITECTURES
from vlmteach.teachers.qwen_network import linear_patch_embedding


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3_vl_4b", 4_437_815_808),
        ("qwen3_vl_8b", 8_767_123_696),
        ("qwen2_5_vl_7b", 8_292_166_656),
        ("internvl3_8b", 7_944_373_760),
    ],
)
def test_parameter_count(name, parameters):
    config = AutoConfig.for_model(**json.loads((ARCHITECTURES / f"{name}.json").read_text()))
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(config)
    network.tie_weights()
    if hasattr(network.model, "visual"):
        linear_patch_embedding(network)
        assert isinstance(network.model.visual.patch_embed, torch.nn.Linear)
    assert sum(p.numel() for p in network.parameters()) == parameters
