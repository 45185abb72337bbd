"""The teacher's network: how it starts, and its forward pass over a batch of packed rows.

The weights live in transformers' `Qwen3VLForConditionalGeneration`; what is here is its arithmetic
once more, for rows of one length, so that one graph can be compiled. A test holds the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.mini.train.teacher.tokens import PATCHES, TOKENS


def new_network(folder: Path, seed: int) -> Any:
    """The network that config.json in a folder describes, with its starting weights.

    A plain start stays at the classes' mean for many hundred steps. Here queries and keys begin
    equal, so that like attends to like, and outputs begin as the values' transpose, so that what is
    attended to is copied (mimetic initialisation, Trockman and Kolter 2023).
    """
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.text_config.dtype = torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = Qwen3VLForConditionalGeneration(config)
        start_language(network)
        for block in network.model.visual.blocks:
            q, k, v = block.attn.qkv.weight.data.chunk(3)
            start_attention(q, k, v, block.attn.proj.weight, 0.3)
            block.mlp.linear_fc2.weight.data *= 0.3
    return network


def start_language(network: Any) -> None:
    """All weights of a network by their fan, then its language model's as `new_network` says."""
    for name, weight in network.named_parameters():
        if weight.ndim == 1:
            nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
        elif "embed" in name and "patch" not in name:
            nn.init.normal_(weight, std=0.5 if "tokens" in name else 0.3)
        else:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    language = network.model.language_model
    for layer in language.layers:
        own = layer.self_attn
        start_attention(own.q_proj.weight, own.k_proj.weight, own.v_proj.weight, own.o_proj.weight)
        layer.mlp.down_proj.weight.data *= 0.3
    # The answer begins undecided: small logits.
    language.norm.weight.data *= 0.2


def start_attention(q: Tensor, k: Tensor, v: Tensor, out: Tensor, share: float = 0.5) -> None:
    """Queries and keys that agree, but for a quarter of noise; outputs as the values' transpose.

    Args:
        q, k, v, out: weights [C, C], set in place.
        share: of what is attended to that is copied.
    """
    with torch.no_grad():
        nn.init.orthogonal_(q)
        noise = torch.randn_like(q) * q.shape[1] ** -0.5
        k.copy_(q + 0.25 * noise)
        nn.init.orthogonal_(v)
        out.copy_(share * v.T)


def linear_patches(network: Any) -> tuple[Tensor, Tensor]:
    """The patch embedding's kernel as a matrix, and its bias."""
    embed = network.model.visual.patch_embed
    embed = getattr(embed, "proj", embed)
    return embed.weight.flatten(1), embed.bias


def patch_rows(frames: Tensor) -> Tensor:
    """[B, T, 3, H, W] in [0, 1] -> [B, N, D]: `vlmteach.teachers.pixels.patches` for a batch."""
    from benchmarks.mini.train.teacher.tokens import MERGE, PATCH, TEMPORAL

    b, t, c, h, w = frames.shape
    if missing := -t % TEMPORAL:
        frames = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        t += missing
    x = (frames - 0.5) / 0.5
    m, p = MERGE, PATCH
    x = x.reshape(b, t // TEMPORAL, TEMPORAL, c, h // (m * p), m, p, w // (m * p), m, p)
    x = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
    return x.reshape(b, -1, c * TEMPORAL * p * p)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of [..., D]; cosines and sines broadcast against it."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """[..., heads, S, D]; the plain product: its backward pass beats the fused one on a CPU."""
    with torch.autocast("cpu", enabled=False):  # its softmax would go to float32 and back
        scores = (q * q.shape[-1] ** -0.5).to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return scores.softmax(-1) @ v


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def see(network: Any, patches: Tensor, size: tuple[int, int] = (PATCHES, PATCHES)) -> Tensor:
    """[B, N, D] patches of whole temporal patches -> [B, N / 4, hidden] visual tokens.

    Args:
        patches: of frames, or of images, one after the other.
        size: patches of each along (h, w).
    """
    visual = network.model.visual
    b, n, _ = patches.shape
    weight, bias = linear_patches(network)
    order = _block_order(size, patches.device)
    place = _places(network, size, order)  # [h w, C]
    x = F.linear(patches, weight, bias).reshape(-1, len(order), weight.shape[0]) + place
    cos, sin = _vision_rotary(network, torch.stack([order // size[1], order % size[1]], -1))
    heads = network.config.vision_config.num_heads
    for block in visual.blocks:
        y = block.norm1(x)
        q, k, v = block.attn.qkv(y).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, None)
        x = x + block.attn.proj(y.transpose(1, 2).flatten(2))
        y = block.mlp.linear_fc1(block.norm2(x))
        x = x + block.mlp.linear_fc2(F.gelu(y, approximate="tanh"))
    merger = visual.merger
    x = merger.norm(x).reshape(b, n // 4, -1)
    return merger.linear_fc2(F.gelu(merger.linear_fc1(x)))


def _block_order(size: tuple[int, int], device: torch.device) -> Tensor:
    """Patches of one image in the order of `patch_rows`, as indices row by row, [h w]."""
    h, w = size
    blocks = torch.arange(h * w, device=device).reshape(h // 2, 2, w // 2, 2)
    return blocks.permute(0, 2, 1, 3).flatten()


def _places(network: Any, size: tuple[int, int], order: Tensor) -> Tensor:
    """Embeddings of an image's places in `order`, between those of the table in a larger image."""
    visual = network.model.visual
    if size == (PATCHES, PATCHES):
        return visual.pos_embed.weight[order]
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    near, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, *size]]),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.config.spatial_merge_size,
    )
    return (visual.pos_embed(near) * weights[:, :, None]).sum(1)


def _vision_rotary(network: Any, places: Tensor) -> tuple[Tensor, Tensor]:
    visual = network.model.visual
    cos, sin = visual.rotary_pos_emb(visual.pos_embed.weight, places)
    return cos.squeeze(), sin.squeeze()


def think(network: Any, embeds: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
    """[B, S, C] embeddings -> [B, S, C] last hidden states.

    Args:
        positions: [3, B, S], or [B, S] where places have one axis.
        bias: [B, 1, S, S] added to the attention scores, 0 where a row may see a column.
    """
    language = network.model.language_model
    cos, sin = language.rotary_emb(embeds, positions)
    cos, sin = cos[:, None], sin[:, None]
    x = embeds
    for layer in language.layers:
        attention = layer.self_attn
        y = _rms(x, layer.input_layernorm.weight)
        heads = (-1, attention.head_dim)
        q = _rms(attention.q_proj(y).unflatten(-1, heads), attention.q_norm.weight).transpose(1, 2)
        k = _rms(attention.k_proj(y).unflatten(-1, heads), attention.k_norm.weight).transpose(1, 2)
        v = attention.v_proj(y).unflatten(-1, heads).transpose(1, 2)
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, bias)
        x = x + attention.o_proj(y.transpose(1, 2).flatten(2))
        y = _rms(x, layer.post_attention_layernorm.weight)
        mlp = layer.mlp
        x = x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
    return _rms(x, language.norm.weight)


def read(
    network: Any,
    patches: Tensor,
    ids: Tensor,
    visual: Tensor,
    positions: Tensor,
    bias: Tensor,
    scored: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at the scored places, and what else the dense losses look at.

    Args:
        patches: [B, N, D].
        ids: [B, S].
        visual: [N / 4] places of the visual tokens in every row.
        positions: [3, B, S].
        bias: [B, 1, S, S].
        scored: [B, Q] places whose next token is asked for.

    Returns:
        [B, Q, V] logits, [B, N / 4, hidden] visual tokens, and [B, N / 4 + Q, hidden] last hidden
        states of the visual and of the scored places.
    """
    seen = see(network, patches)
    return answer(network, seen, ids, visual, positions, bias, scored)


def answer(
    network: Any,
    seen: Tensor,
    ids: Tensor,
    visual: Tensor,
    positions: Tensor,
    bias: Tensor,
    scored: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`read` once the visual tokens [B, V, hidden] are there; `positions` as `think` takes them."""
    embedding = network.model.language_model.embed_tokens.weight
    embeds = F.embedding(ids, embedding)
    embeds = embeds.index_copy(1, visual, seen)
    if torch.is_autocast_enabled("cpu"):
        bias = bias.to(torch.get_autocast_dtype("cpu"))
    hidden = think(network, embeds, positions, bias)
    asked = hidden.gather(1, scored[..., None].expand(-1, -1, hidden.shape[-1]))
    kept = torch.cat([hidden[:, visual], asked], 1)
    return F.linear(asked, embedding), seen, kept


assert TOKENS == (PATCHES // 2) ** 2
