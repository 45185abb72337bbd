"""The real HunyuanVideo-1.5, on the meta device: parameter counts, LoRA names, shapes."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
)
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)

from benchmarks.speed.full_size import HUNYUAN, REAL, architecture
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.reasoners.hunyuan15_checkpoint import HunyuanParts
from vlmteach.types import ClipSpec

# What the configs of the 480p image-to-video step distillation say.
ARCHITECTURE = architecture(next(name for name, real in REAL.items() if real == HUNYUAN))
META = torch.device("meta")


@pytest.fixture
def reasoner() -> HunyuanReasoner:
    with META:
        parts = HunyuanParts(
            transformer=HunyuanVideo15Transformer3DModel(**ARCHITECTURE["transformer"]),
            vae=AutoencoderKLHunyuanVideo15(**ARCHITECTURE["vae"]),
            text_encoder=None,
            tokenizer=None,
            glyph_encoder=None,
            glyph_tokenizer=None,
            image_encoder=None,
            image_processor=None,
        )
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
    assert all(name.startswith("double_blocks.") for name in originals)
