"""The real Wan2.2-TI2V-5B, on the meta device: parameter counts, LoRA names, shapes."""

from __future__ import annotations

import pytest
import torch

from tests.families.reasoner_wan import parts_on_meta
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.base import Condition
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.types import ClipSpec

META = torch.device("meta")


@pytest.fixture
def reasoner() -> WanReasoner:
    parts = parts_on_meta("Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    return WanReasoner(parts, device=META, accepts="both")


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts(reasoner):
    assert count(reasoner.network) == 4_999_787_712
    assert count(reasoner.vae) == 704_688_668
    assert count(reasoner.text_encoder) == 5_680_910_336


def test_velocity_at_the_size_of_the_paper(reasoner):
    clip = ClipSpec(frames=89, height=704, width=1280, fps=24.0)
    shape = reasoner.latent_shape(clip)
    assert shape == (1, 48, 23, 44, 80)
    condition = Condition(
        text=torch.empty(1, 512, 4096, device=META),
        first_latent=torch.empty(1, 48, 1, 44, 80, device=META),
    )
    assert reasoner.velocity(torch.empty(shape, device=META), 1.0, condition).shape == shape


NAMES = {
    f"blocks.{block}.{ours}": f"blocks.{block}.{original}"
    for block in range(30)
    for ours, original in [
        ("attn1.to_q", "self_attn.q"),
        ("attn1.to_k", "self_attn.k"),
        ("attn1.to_v", "self_attn.v"),
        ("attn1.to_out.0", "self_attn.o"),
        ("attn2.to_q", "cross_attn.q"),
        ("attn2.to_k", "cross_attn.k"),
        ("attn2.to_v", "cross_attn.v"),
        ("attn2.to_out.0", "cross_attn.o"),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
    ]
}


@pytest.mark.parametrize(
    ("targets", "holds", "modules", "per_rank"),
    [
        ("attention", "attn", 240, 1_474_560),
        ("self_attention", "attn1", 120, 737_280),
        ("cross_attention", "attn2", 120, 737_280),
        ("all_linear", "", 300, 2_519_040),
    ],
)
def test_lora_names_and_counts(reasoner, targets, holds, modules, per_rank):
    rank = 16
    lora = InstanceLora(
        reasoner.network, rank=rank, alpha=16.0, targets=reasoner.lora_targets[targets]
    )
    expected = [name for name in NAMES if holds in name]
    assert len(expected) == modules
    assert {slot.name for slot in lora.slots} == {
        f"{name}.lora_{matrix}.weight" for name in expected for matrix in "AB"
    }
    assert lora.flat.numel() == per_rank * rank
    trainable = [p for p in reasoner.network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trainable) == per_rank * rank
    for name in expected:
        assert reasoner.comfyui_key(name) == (NAMES[name], 0, 1)
