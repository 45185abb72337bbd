"""Wan's layers by name: in diffusers, and as first published, which ComfyUI follows."""

from __future__ import annotations

from collections.abc import Iterable

from vlmteach.reasoners.parts import original_name

LINEAR = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""A block's linear layers, diffusers' name to the original's."""

_BLOCK = {
    **LINEAR,
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "norm2": "norm3",  # the only one of a block's three norms that has weights
    "scale_shift_table": "modulation",
}
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}


def originals(layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The original's name of each layer -> diffusers' names of what it holds: one, for Wan.

    Args:
        layers: in diffusers, with or without weights of their own; `layers_of` gives them.

    Raises:
        ValueError: a layer that Wan2.2's transformers do not have.
    """
    return {
        _OUTSIDE.get(layer) or original_name(layer, "blocks", "blocks", _BLOCK): (layer,)
        for layer in layers
    }
