"""The families' real sizes, on the meta device: nothing is allocated."""

import pytest
import torch
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig

from vlmteach.teachers.qwen_network import linear_patch_embedding


def _qwen3(hidden, ffn, vision, tied):
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": hidden,
            "intermediate_size": ffn,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": tied,
        },
        vision_config={"num_heads": 16, "out_hidden_size": hidden, **vision},
        tie_word_embeddings=tied,
    )


def _qwen3_4b():
    vision = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "deepstack_visual_indexes": [5, 11, 17],
    }
    return _qwen3(2560, 9728, vision, True)


def _qwen3_8b():
    vision = {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "deepstack_visual_indexes": [8, 16, 24],
    }
    return _qwen3(4096, 12288, vision, False)


def _qwen2_5_7b():
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        },
        vision_config={"hidden_size": 1280, "out_hidden_size": 3584},
        tie_word_embeddings=False,
    )


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(_qwen3_4b, 4_437_815_808), (_qwen3_8b, 8_767_123_696), (_qwen2_5_7b, 8_292_166_656)],
)
def test_parameter_count(config, parameters):
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(config())
    network.tie_weights()
    linear_patch_embedding(network)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert isinstance(network.model.visual.patch_embed, torch.nn.Linear)
