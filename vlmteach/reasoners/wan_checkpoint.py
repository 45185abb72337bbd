"""Reading a Wan2.2-TI2V-5B checkpoint: what is refused, what is loaded, what is fused into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from safetensors import SafetensorError
from transformers import AutoTokenizer, UMT5EncoderModel

from vlmteach.reasoners.parts import load_part, read_configs

_LORA = "distillation"
_EXPECTED = "the layout of Wan-AI/Wan2.2-TI2V-5B-Diffusers"


@dataclass(frozen=True, slots=True)
class WanParts:
    """The four parts of a checkpoint, on the CPU.

    Typed loosely, as diffusers' own annotations do not hold up under a type checker.
    """

    transformer: Any
    """A `WanTransformer3DModel`."""
    vae: Any
    """An `AutoencoderKLWan`."""
    text_encoder: torch.nn.Module
    """A `UMT5EncoderModel`."""
    tokenizer: Any
    """T5's, from transformers."""


def load_parts(checkpoint: str | Path, dtype: torch.dtype, vae_dtype: torch.dtype) -> WanParts:
    """Loads the parts of a local folder or a hub id in diffusers' layout; safetensors only.

    Transformer and text encoder are in `dtype` (diffusers itself keeps the transformer's norms and
    modulation in float32), the VAE in `vae_dtype`: diffusers recommends float32 for Wan.

    Raises:
        ValueError: for a checkpoint that is not of the Wan2.2-TI2V-5B kind.
    """
    _check(checkpoint)
    return WanParts(
        transformer=load_part(WanTransformer3DModel, checkpoint, "transformer", torch_dtype=dtype),
        vae=load_part(AutoencoderKLWan, checkpoint, "vae", torch_dtype=vae_dtype),
        text_encoder=load_part(UMT5EncoderModel, checkpoint, "text_encoder", dtype=dtype),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint, subfolder="tokenizer"),
    )


def _check(checkpoint: str | Path) -> None:
    """Refuses, before any weight is read, what the reasoner would sample wrongly."""
    index, transformer, vae = read_configs(
        checkpoint,
        _EXPECTED,
        {None: WanPipeline, "transformer": WanTransformer3DModel, "vae": AutoencoderKLWan},
    )

    def refuse(what: str, got: object, expected: object) -> None:
        raise ValueError(
            f"checkpoint: got {str(checkpoint)!r} with {what} {got!r}, expected {expected!r}; only "
            "the Wan2.2-TI2V-5B family (one transformer, per-token timesteps) is supported, not "
            "Wan2.1; the two-expert models of Wan2.2-A14B are reasoner.family wan_a14b"
        )

    if index.get("transformer_2") not in (None, [None, None], (None, None)):
        refuse("transformer_2", index["transformer_2"], None)
    if index.get("boundary_ratio") is not None:
        refuse("boundary_ratio", index["boundary_ratio"], None)
    if index.get("expand_timesteps") is not True:
        refuse("expand_timesteps", index.get("expand_timesteps"), True)
    if transformer.get("image_dim") is not None:
        refuse("image_dim", transformer["image_dim"], None)
    for side in ("in_channels", "out_channels"):
        if transformer[side] != vae["z_dim"]:
            refuse(f"{side} of the transformer", transformer[side], vae["z_dim"])


def fuse_lora(transformer: Any, file: str | Path) -> None:
    """Adds a LoRA file to the transformer's weights and removes the adapter again.

    Read by diffusers' own loader: its keys (`transformer.blocks...`) and the original model's
    (`diffusion_model.blocks...`, as ComfyUI writes them) both work, and a stated alpha is obeyed.

    Raises:
        ValueError: for anything that is not a safetensors LoRA of which every layer exists in the
            transformer with the same shape: half a distillation would sample wrongly in silence.
    """
    path = Path(file).expanduser()
    remedy = "take a safetensors LoRA made for this model"
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"distillation_lora: got {str(file)!r}, expected an existing .safetensors file; "
            f"{remedy}"
        )
    try:
        state, metadata = WanPipeline.lora_state_dict(
            str(path), use_safetensors=True, return_lora_metadata=True
        )
    except (ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"distillation_lora: got {str(file)!r}, which diffusers cannot read as a LoRA of Wan "
            f"({error}), expected keys like transformer.blocks.0.attn1.to_q.lora_A.weight or "
            f"diffusion_model.blocks.0.self_attn.q.lora_A.weight; {remedy}"
        ) from error
    layers = {key.rpartition(".lora")[0] for key in state}
    missing = sorted(layers - {f"transformer.{name}" for name, _ in transformer.named_modules()})
    if missing or not layers:
        raise ValueError(
            f"distillation_lora: got {str(file)!r} with {len(layers)} layers, of which "
            f"{len(missing)} are not in the transformer ({', '.join(missing[:3])}), expected every "
            f"layer to match; {remedy}"
        )
    try:
        WanPipeline.load_lora_into_transformer(
            state, transformer, adapter_name=_LORA, metadata=metadata
        )
    except RuntimeError as error:
        raise ValueError(
            f"distillation_lora: got {str(file)!r} with shapes that do not fit "
            f"({str(error).splitlines()[-1].strip()}), expected the transformer's; {remedy}"
        ) from error
    transformer.fuse_lora(adapter_names=[_LORA])
    transformer.unload_lora()
