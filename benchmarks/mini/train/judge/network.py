"""The judge's network: how it starts, and its forward pass over a batch of packed rows.

The weights live in transformers' `InternVLForConditionalGeneration`; what is here is its tower's
arithmetic once more, without what a batch of small tiles does not need. A test holds the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train.judge.tokens import PATCH, SHUFFLE, TILE
from benchmarks.mini.train.teacher.network import attend, start_attention, start_language
from vlmteach.teachers.tiles import TileSpec, frame_tiles

_SPEC = TileSpec(size=(TILE, TILE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def new_network(folder: Path, seed: int) -> Any:
    """The network that config.json in a folder describes, with its starting weights.

    It starts as the teacher does, see `benchmarks.mini.train.teacher.network.new_network`.
    """
    from transformers import AutoConfig, InternVLForConditionalGeneration

    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.text_config.dtype = torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = InternVLForConditionalGeneration(config)
        start_language(network)
        for layer in network.model.vision_tower.encoder.layer:
            own = layer.attention
            weights = (own.q_proj.weight, own.k_proj.weight, own.v_proj.weight)
            start_attention(*weights, own.projection_layer.weight, 0.3)
            layer.mlp.fc2.weight.data *= 0.3
    return network


def patch_rows(frames: Tensor) -> Tensor:
    """[B, T, 3, H, W] in [0, 1] -> [B, T, N, D]: `vlmteach.teachers.tiles` for a batch, cut."""
    b, t = frames.shape[:2]
    side = TILE // PATCH
    tiles = frame_tiles(frames.flatten(0, 1), _SPEC)
    cut = tiles.reshape(b, t, 3, side, PATCH, side, PATCH).permute(0, 1, 3, 5, 2, 4, 6)
    return cut.reshape(b, t, side**2, -1)


def see(network: Any, patches: Tensor) -> Tensor:
    """[B, T, N, D] patches of frames -> [B, T N / 4, hidden] visual tokens, row by row."""
    tower = network.model.vision_tower
    b, t, n, _ = patches.shape
    projection, place = tower.embeddings.patch_embeddings.projection, tower.embeddings
    x = F.linear(patches.flatten(0, 1), projection.weight.flatten(1), projection.bias)
    first = place.cls_token.expand(len(x), -1, -1).to(x.dtype)
    x = torch.cat([first, x], 1) + place.position_embeddings
    heads = (-1, network.config.vision_config.hidden_size // tower.config.num_attention_heads)
    for layer in tower.encoder.layer:
        own, y = layer.attention, layer.layernorm_before(x)
        q, k, v = (
            part(y).unflatten(-1, heads).transpose(1, 2)
            for part in (own.q_proj, own.k_proj, own.v_proj)
        )
        y = attend(q, k, v, None).transpose(1, 2).flatten(2)
        x = x + layer.lambda_1 * own.projection_layer(y)
        y = F.gelu(layer.mlp.fc1(layer.layernorm_after(x)))
        x = x + layer.lambda_2 * layer.mlp.fc2(y)
    side = int(n**0.5) // SHUFFLE
    # Pixel shuffle: [B T, N, C] -> [B T, N / 4, 4 C], the patches of a token one after another.
    x = x[:, 1:].reshape(b * t, side, SHUFFLE, side, SHUFFLE, -1).transpose(2, 3)
    projector = network.model.multi_modal_projector
    x = projector.layer_norm(x.reshape(b, t * side**2, -1))
    return projector.linear_2(F.gelu(projector.linear_1(x)))
