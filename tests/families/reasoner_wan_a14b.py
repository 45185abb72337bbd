"""The family `wan_a14b`: Wan2.2-A14B, two experts."""

from pathlib import Path

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from tests.families import Accepts, FullSize, ReasonerCase
from tests.families.reasoner_wan import full_decoder, parts_on_meta
from vlmteach.builtin.wan import save_random_wan_a14b
from vlmteach.plan.counted import META
from vlmteach.plan.known import architecture
from vlmteach.reasoners import wan_a14b


def save(folder: Path, accepts: Accepts) -> None:
    save_random_wan_a14b(folder, image=accepts != "text")


def experts_on_meta(checkpoint, dtype, vae_dtype, carrier):
    assert carrier == "high_noise"
    with META:
        other = WanTransformer3DModel(**architecture(str(checkpoint))["transformer"])
    return parts_on_meta(checkpoint), other


def on_meta(patch, fused: list[str]) -> None:
    patch.setattr(wan_a14b, "load_experts", experts_on_meta)
    patch.setattr(wan_a14b, "boundary_of", lambda checkpoint: 900.0)
    patch.setattr(wan_a14b, "fuse_lora", lambda network, file: fused.append(str(file)))


CASE = ReasonerCase(
    save=save,
    full_decoder=full_decoder,
    full_size=FullSize(
        transformer=14_288_901_184,
        vae=126_892_531,
        surrogate=9_844_611,
        adapter=3_276_800,
        layers={
            f"blocks.{block}.{attention}.{layer}"
            for block in range(40)
            for attention in ("attn1", "attn2")
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
        },
    ),
    on_meta=on_meta,
    fused=lambda lora: [
        f"{lora}/{expert}_model.safetensors" for expert in ("high_noise", "low_noise")
    ],
)
