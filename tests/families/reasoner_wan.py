"""The family `wan`: Wan2.2-TI2V-5B."""

from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from tests.families import Accepts, FullSize, ReasonerCase
from vlmteach.builtin.wan import save_random_wan
from vlmteach.decoders.full import FullDecoder
from vlmteach.plan.counted import META
from vlmteach.plan.known import architecture
from vlmteach.reasoners import wan
from vlmteach.reasoners.wan_checkpoint import WanParts


def save(folder: Path, accepts: Accepts) -> None:
    save_random_wan(folder)


def full_decoder() -> FullDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(8)
    return FullDecoder(vae)


def parts_on_meta(checkpoint, dtype=None, vae_dtype=None) -> WanParts:
    """What the configs of a real checkpoint say, without its weights."""
    real = architecture(str(checkpoint))
    with META:
        return WanParts(
            transformer=WanTransformer3DModel(**real["transformer"]),
            vae=AutoencoderKLWan(**real["vae"]),
            text_encoder=UMT5EncoderModel(UMT5Config(**real["text_encoder"])),
            tokenizer=cast(Any, None),
        )


def on_meta(patch, fused: list[str]) -> None:
    patch.setattr(wan, "load_parts", parts_on_meta)
    patch.setattr(wan, "fuse_lora", lambda network, file: fused.append(str(file)))


CASE = ReasonerCase(
    save=save,
    full_decoder=full_decoder,
    full_size=FullSize(
        transformer=4_999_787_712,
        vae=704_688_668,
        surrogate=9_923_532,
        adapter=1_474_560,
        layers={
            f"blocks.{block}.{attention}.{layer}"
            for block in range(30)
            for attention in ("attn1", "attn2")
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
        },
    ),
    on_meta=on_meta,
    fused=lambda lora: [lora],
)
