"""The real HunyuanVideo-1.5, on the meta device: parameter counts, LoRA names, shapes."""

from __future__ import annotations

import pytest
import torch

from tests.families.reasoner_hunyuan15 import parts_on_meta
from vlmteach.lora import InstanceLora
from vlmteach.plan.known import HUNYUAN, REAL
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.types import ClipSpec

META = torch.device("meta")


@pytest.fixture
def reasoner() -> HunyuanReasoner:
    parts = parts_on_meta(next(name for name, real in REAL.items() if real == HUNYUAN))
    return HunyuanReasoner(parts, device=META, accepts="both")


def test_parameter_counts_and_latent_shape(reasoner):
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(reasoner.network) == 8_331_330_848
    assert count(reasoner.vae) == 1_260_634_115
    clip = ClipSpec(frames=81, height=480, width=832, fps=24.0)
    assert reasoner.latent_shape(clip) == (1, 32, 21, 30, 52)


@pytest.mark.parametrize(
    ("targets", "modules", "per_rank"),
    [
        ("attention", 54 * 8 - 2, 1_761_280),
        ("self_attention", 54 * 4, 884_736),
        ("cross_attention", 54 * 4 - 2, 876_544),
        ("all_linear", 54 * 12 - 4, 3_952_640),
    ],
)
def test_lora_names_and_counts(reasoner, targets, modules, per_rank):
    lora = InstanceLora(reasoner.network, rank=2, alpha=2.0, targets=reasoner.lora_targets[targets])
    assert lora.flat.numel() == 2 * per_rank
    names = {slot.name.rsplit(".lora_", 1)[0] for slot in lora.slots}
    assert len(names) == modules
    originals = {reasoner.comfyui_key(name) for name in names}
    assert len(originals) == modules
    assert all(there.layer.startswith("double_blocks.") for there in originals)
