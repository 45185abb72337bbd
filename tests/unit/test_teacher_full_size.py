"""The families' real sizes, on the meta device: nothing is allocated."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.families import cases
from vlmteach.plan.known import ARCHITECTURES
from vlmteach.teachers.qwen_network import linear_patch_embedding


@pytest.mark.parametrize(
    ("name", "parameters"),
    [sized for case in cases("teacher").values() for sized in case.full_size.items()],
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
