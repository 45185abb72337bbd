"""Transformers of the real classes, as small as they come, for tests that only look at weights."""

from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from vlmteach.reasoners.parts import layers_of
from vlmteach.reasoners.wan_names import originals

WIDTH = 24


def as_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Wan transformer's weights by the original's names."""
    names = {ours: theirs for theirs, (ours,) in originals(layers_of(weights)).items()}
    renamed = {}
    for name, tensor in weights.items():
        (layer,) = layers_of([name])
        renamed[names[layer] + name.removeprefix(layer)] = tensor
    return renamed


def tiny_wan() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=WIDTH // 2,
            in_channels=3,
            out_channels=3,
            text_dim=8,
            freq_dim=8,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )


def tiny_hunyuan() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HunyuanVideo15Transformer3DModel(
            in_channels=3,
            out_channels=1,
            num_attention_heads=2,
            attention_head_dim=WIDTH // 2,
            num_layers=2,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=8,
            text_embed_2_dim=8,
            image_embed_dim=8,
            rope_axes_dim=(4, 4, 4),
        )
