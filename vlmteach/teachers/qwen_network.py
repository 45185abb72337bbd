"""The frozen Qwen-VL network as transformers loads it, with two exact changes for speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmteach.teachers import network

Family = Literal["qwen3_vl", "qwen2_5_vl"]


def load_network(checkpoint: str | Path, *, family: Family, dtype: torch.dtype) -> Any:
    """As `network.load_network`, with the two changes below.

    Raises:
        ValueError: the checkpoint is of another family or has dropout.
    """
    loaded = network.load_network(checkpoint, family=family, dtype=dtype)
    linear_patch_embedding(loaded)
    if family == "qwen3_vl":
        batched_vision_attention(loaded)
    return loaded.requires_grad_(False).eval()


def linear_patch_embedding(loaded: Any) -> None:
    """Puts the linear layer that it is in the place of the patch embedding's Conv3d, in place.

    Kernel and stride are equal, so each patch meets the kernel once. The convolution's backward
    pass costs more than the rest of the tower. (transformers' `fusion_config` makes the same
    exchange, but in the class and for the whole process.)
    """
    conv = loaded.model.visual.patch_embed.proj
    assert isinstance(conv, nn.Conv3d)
    assert conv.kernel_size == conv.stride
    rows = conv.weight.detach().flatten(1)
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(rows)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    loaded.model.visual.patch_embed = linear


def batched_vision_attention(loaded: Any) -> None:
    """Lets a Qwen3-VL's vision tower attend within all temporal patches at once, in place.

    Each temporal patch of a video sees only itself. transformers takes them one by one, in a loop
    that also reads their lengths back from the device in every layer. Images of different sizes go
    that way still. (Qwen2.5-VL's windows are of different sizes and stay as they are.)
    """
    visual = loaded.model.visual
    for block in visual.blocks:
        block.attn = _BatchedAttention(block.attn)

    def note(tower: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        grid = named["grid_thw"] if "grid_thw" in named else arguments[1]
        # A video alone, as in every update, costs no read-back.
        equal = len(grid) == 1 or len(set(grid[:, 1:].prod(1).tolist())) == 1
        for block in tower.blocks:
            block.attn.equal = equal

    visual.register_forward_pre_hook(note, with_kwargs=True)


class _BatchedAttention(nn.Module):
    """Vision attention: at once where all chunks are of equal length, else as transformers does."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.equal = True
        self.one_by_one = attention.forward
        self.qkv: nn.Linear = attention.qkv
        self.proj: nn.Linear = attention.proj
        self.heads: int = attention.num_heads

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **named: Any,
    ) -> Tensor:
        """[S, D] -> [S, D]; `cu_seqlens` [t + 1] is where each of the t chunks begins and ends."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

        if not self.equal:
            return self.one_by_one(
                hidden_states, cu_seqlens, position_embeddings=position_embeddings, **named
            )
        q, k, v = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1)).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        chunks = (len(cu_seqlens) - 1, -1)
        # [S, heads, D'] -> [t, heads, S / t, D']
        q, k, v = (x.unflatten(0, chunks).transpose(1, 2) for x in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v)
        return self.proj(seen.transpose(1, 2).flatten(2).flatten(0, 1))
