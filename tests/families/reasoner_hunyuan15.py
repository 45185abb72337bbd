"""The family `hunyuan15`: HunyuanVideo-1.5."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
)
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from transformers import SiglipVisionConfig, SiglipVisionModel

from tests.families import Accepts, FullSize, ReasonerCase
from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder
from vlmteach.plan.counted import META
from vlmteach.plan.known import architecture
from vlmteach.reasoners import hunyuan15
from vlmteach.reasoners.hunyuan15_checkpoint import HunyuanParts


def save(folder: Path, accepts: Accepts) -> None:
    save_random_hunyuan15(folder)


def full_decoder() -> HunyuanFullDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels: Any = (4, 8, 16, 32, 64)
        vae = AutoencoderKLHunyuanVideo15(block_out_channels=channels, layers_per_block=1)
    with torch.no_grad():
        vae.decoder.conv_out.conv.weight.mul_(8)
    return HunyuanFullDecoder(vae)


def parts_on_meta(checkpoint, dtype=None, vae_dtype=None) -> HunyuanParts:
    """What the configs of a real checkpoint say, without its weights and its text encoders."""
    real = architecture(str(checkpoint))
    with META:
        return HunyuanParts(
            transformer=HunyuanVideo15Transformer3DModel(**real["transformer"]),
            vae=AutoencoderKLHunyuanVideo15(**real["vae"]),
            text_encoder=None,
            tokenizer=None,
            glyph_encoder=None,
            glyph_tokenizer=None,
            image_encoder=SiglipVisionModel(SiglipVisionConfig(num_hidden_layers=1)),
            image_processor=None,
        )


def on_meta(patch, fused: list[str]) -> None:
    patch.setattr(hunyuan15, "load_parts", parts_on_meta)


CASE = ReasonerCase(
    save=save,
    full_decoder=full_decoder,
    full_size=FullSize(
        transformer=8_331_330_848,
        vae=1_260_634_115,
        surrogate=9_886_668,
        adapter=1_761_280,
        layers={
            f"transformer_blocks.{block}.attn.{layer}"
            for block in range(54)
            for layer in (
                *("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
                # The last block's text output is thrown away.
                *(("add_q_proj", "to_add_out") if block < 53 else ()),
            )
        },
    ),
    on_meta=on_meta,
    fused=lambda lora: [],
    reads=13,  # masks of tokens
)
