"""The adapter in ComfyUI: its model's layers and its loader's rules as facts, and our file on them.

Read in ComfyUI's source (`comfy/lora.py`, `comfy/weight_adapter/lora.py`, `comfy/ldm/wan/model.py`,
`comfy/ldm/flux/layers.py`, `comfy/supported_models.py`):

- a weight `diffusion_model.LAYER.weight` answers to keys that begin with `diffusion_model.LAYER`;
- of such a key, `.lora_A.weight` and `.lora_B.weight` are a pair, and B A is added to the weight,
  times alpha / rank where there is `.alpha`, which takes the rank from A, and times 1 where not;
- a key that no layer asks for is a line in the log and nothing else;
- HunyuanVideo-1.5 is built of the joint blocks of Flux: q, k and v are the rows of one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.families.networks import tiny_hunyuan, tiny_wan
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner, lora_targets
from vlmteach.reasoners.wan import LORA_TARGETS, WanReasoner
from vlmteach.reasoners.wan_a14b import WanA14BReasoner

WAN = {
    f"{theirs}_attn.{letter}": [f"attn{number}.{ours}"]
    for number, theirs in ((1, "self"), (2, "cross"))
    for letter, ours in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
} | {"ffn.0": ["ffn.net.0.proj"], "ffn.2": ["ffn.net.2"]}
HUNYUAN = {
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "img_attn.proj": ["attn.to_out.0"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "txt_attn.proj": ["attn.to_add_out"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
}
"""A block's linear layers in ComfyUI -> ours, the rows of each from the top."""

FAMILIES: dict[str, tuple[Callable[[], Any], Any, Any, str, str, dict[str, list[str]]]] = {
    "wan": (tiny_wan, WanReasoner, LORA_TARGETS, "blocks", "blocks", WAN),
    "wan_a14b": (tiny_wan, WanA14BReasoner, LORA_TARGETS, "blocks", "blocks", WAN),
    "hunyuan15": (
        tiny_hunyuan,
        HunyuanReasoner,
        lora_targets(2),
        "double_blocks",
        "transformer_blocks",
        HUNYUAN,
    ),
}


def comfyui(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """diffusers' weights of the blocks as ComfyUI holds them."""
    *_, theirs, ours, block = FAMILIES[family]
    return {
        f"diffusion_model.{theirs}.{number}.{layer}.weight": torch.cat(
            [weights[f"{ours}.{number}.{row}.weight"] for row in rows]
        )
        for number in range(2)
        for layer, rows in block.items()
    }


def apply(model: dict[str, Tensor], file: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The weights with the file applied by the loader's rules, and the keys it passed over."""
    asked, patched = set(), {}
    for name, weight in model.items():
        down, up = (f"{name.removesuffix('.weight')}.lora_{m}.weight" for m in "AB")
        patched[name] = weight
        if up in file:
            patched[name] = weight + (file[up] @ file[down]).reshape(weight.shape)
            asked |= {down, up}
    return patched, file.keys() - asked


@pytest.mark.parametrize("targets", ["attention", "cross_attention", "all_linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_comfyui_applies_all_of_the_adapter_and_gets_the_same_weights(tmp_path, family, targets):
    make, reasoner, names, *_ = FAMILIES[family]
    network = make().requires_grad_(False)
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    lora = InstanceLora(network, rank=3, alpha=5.0, targets=names[targets])
    lora.load(torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(0)))
    lora.export(tmp_path / "d", tmp_path / "c", reasoner.comfyui_key, {})

    before = comfyui(weights, family)
    patched, ignored = apply(before, load_file(tmp_path / "c"))
    assert not ignored
    ours = load_file(tmp_path / "d")
    for key in [key for key in ours if key.endswith(".lora_A.weight")]:
        name = key.removeprefix("transformer.").replace(".lora_A.", ".")
        weights[name] = weights[name] + ours[key.replace("lora_A", "lora_B")] @ ours[key]
    after = comfyui(weights, family)
    assert sum(not torch.equal(after[name], before[name]) for name in after) >= 3
    for name, weight in after.items():
        torch.testing.assert_close(patched[name], weight, msg=name)


def test_a_joint_layer_s_rank_is_that_of_the_layers_that_carry_the_adapter(tmp_path):
    network = tiny_hunyuan().requires_grad_(False)
    lora = InstanceLora(network, rank=3, alpha=3.0, targets=lora_targets(2)["attention"])
    lora.export(tmp_path / "d", tmp_path / "c", HunyuanReasoner.comfyui_key, {})
    shapes = {key: list(matrix.shape) for key, matrix in load_file(tmp_path / "c").items()}
    assert shapes["diffusion_model.double_blocks.0.txt_attn.qkv.lora_A.weight"] == [9, 24]
    assert shapes["diffusion_model.double_blocks.0.txt_attn.qkv.lora_B.weight"] == [72, 9]
    # The last block throws the text's queries away: they carry none.
    assert shapes["diffusion_model.double_blocks.1.txt_attn.qkv.lora_B.weight"] == [72, 6]
    assert shapes["diffusion_model.double_blocks.1.img_attn.qkv.lora_B.weight"] == [72, 9]
    assert shapes["diffusion_model.double_blocks.1.img_attn.proj.lora_B.weight"] == [24, 3]


def test_what_is_written_for_comfyui_is_read_here_as_well(tmp_path):
    from vlmteach.reasoners.hunyuan15_names import originals
    from vlmteach.reasoners.lora_file import fuse_lora
    from vlmteach.reasoners.parts import layers_of

    carrier, plain = tiny_hunyuan().requires_grad_(False), tiny_hunyuan()
    lora = InstanceLora(carrier, rank=3, alpha=5.0, targets=lora_targets(2)["all_linear"])
    lora.load(torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(0)))
    file = tmp_path / "c.safetensors"
    lora.export(tmp_path / "d.safetensors", file, HunyuanReasoner.comfyui_key, {})
    fuse_lora(plain, file, originals(layers_of(name for name, _ in plain.named_parameters())))
    other = tiny_hunyuan()
    fuse_lora(other, tmp_path / "d.safetensors", {})
    for (name, one), (_, two) in zip(
        plain.named_parameters(), other.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=name)
