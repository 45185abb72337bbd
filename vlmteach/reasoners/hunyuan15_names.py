"""HunyuanVideo-1.5's layers by name: in diffusers, as first published, and in ComfyUI.

The published model has a layer each for q, k and v, as diffusers has. ComfyUI has one for the
three, in this order from the top, and names the others with dots.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlmteach.reasoners.base import Place
from vlmteach.reasoners.parts import original_name

_PUBLISHED = {
    "attn.to_q": "img_attn_q",
    "attn.to_k": "img_attn_k",
    "attn.to_v": "img_attn_v",
    "attn.to_out.0": "img_attn_proj",
    "attn.add_q_proj": "txt_attn_q",
    "attn.add_k_proj": "txt_attn_k",
    "attn.add_v_proj": "txt_attn_v",
    "attn.to_add_out": "txt_attn_proj",
    "ff.net.0.proj": "img_mlp.fc1",
    "ff.net.2": "img_mlp.fc2",
    "ff_context.net.0.proj": "txt_mlp.fc1",
    "ff_context.net.2": "txt_mlp.fc2",
}
_COMFYUI = {"_attn_proj": "_attn.proj", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}


def _published(module: str) -> str:
    return original_name(module, "transformer_blocks", "double_blocks", _PUBLISHED)


def place(module: str) -> Place:
    """diffusers' name of a block's linear layer -> its place in ComfyUI's model.

    Raises:
        ValueError: any other layer.
    """
    name = _published(module)
    for part, ending in enumerate(("_attn_q", "_attn_k", "_attn_v")):
        if name.endswith(ending):
            return Place(name.removesuffix(ending) + "_attn.qkv", part, 3)
    for theirs, comfyui in _COMFYUI.items():
        name = name.replace(theirs, comfyui)
    return Place(name)


def originals(layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every other name of the blocks' linear layers -> diffusers' names of what each holds.

    Args:
        layers: in diffusers; those outside the blocks are passed over.
    """
    names: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        block, _, inner = layer.partition(".")
        if block != "transformer_blocks" or inner.partition(".")[2] not in _PUBLISHED:
            continue
        names[_published(layer)] = (layer,)
        there = place(layer).layer
        # The order of diffusers' own parameters need not be that of the rows.
        held = {*names.get(there, ()), layer}
        rows = tuple(sorted(held, key=lambda name: place(name).part))
        # ComfyUI takes the joint layer under the published style of name as well.
        names[there] = names[there.replace("_attn.qkv", "_attn_qkv")] = rows
    return names
