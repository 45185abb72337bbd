"""Reading a Wan2.2-TI2V-5B checkpoint: what is refused, what is loaded, what is fused into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from transformers import UMT5EncoderModel

from vlmteach.checkpoints.tokenizers import load_tokenizer
from vlmteach.reasoners import lora_file
from vlmteach.reasoners.parts import layers_of, load_part, read_configs
from vlmteach.reasoners.wan_names import originals

NO_IMAGE_TOKENS = {"image_dim": None, "added_kv_proj_dim": None}
"""Configs of some Wan2.2 checkpoints carry Wan2.1's widths for an embedding of the image. The model
has none: what they say is not read, and weights of one are refused when they are met."""
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
    checked_index(checkpoint)
    return WanParts(
        transformer=load_transformer(checkpoint, "transformer", dtype),
        vae=load_part(AutoencoderKLWan, checkpoint, "vae", torch_dtype=vae_dtype),
        text_encoder=load_part(UMT5EncoderModel, checkpoint, "text_encoder", dtype=dtype),
        tokenizer=load_tokenizer(checkpoint, "tokenizer"),
    )


def load_transformer(checkpoint: str | Path, part: str, dtype: torch.dtype) -> Any:
    """One `WanTransformer3DModel` of a checkpoint; its weights are exactly those of Wan2.2's."""
    return load_part(WanTransformer3DModel, checkpoint, part, torch_dtype=dtype, **NO_IMAGE_TOKENS)


def has_second(index: Mapping[str, Any]) -> bool:
    """Whether a pipeline's index names a second transformer."""
    return index.get("transformer_2") not in (None, [None, None], (None, None))


def checked_index(checkpoint: str | Path) -> dict[str, Any]:
    """The pipeline's index, `expand_timesteps` in it; refuses what would be sampled wrongly.

    No weight is read. Where the index says nothing of `expand_timesteps`, as indexes from before
    Wan2.2 do not, the parts tell: only its 5B model has the residual VAE.

    Raises:
        ValueError: for a checkpoint that is not of the Wan2.2-TI2V-5B kind.
    """
    index, transformer, vae = read_configs(
        checkpoint,
        _EXPECTED,
        {None: WanPipeline, "transformer": WanTransformer3DModel, "vae": AutoencoderKLWan},
    )

    def refuse(what: str, got: object, expected: object, remedy: str = "") -> None:
        raise ValueError(
            f"checkpoint: got {str(checkpoint)!r} with {what} {got!r}, expected {expected!r}; only "
            "the Wan2.2-TI2V-5B family (one transformer, per-token timesteps) is supported, not "
            "Wan2.1; the two-expert models of Wan2.2-A14B are reasoner.family wan_a14b" + remedy
        )

    wanted = WanTransformer3DModel.__name__
    if transformer.get("_class_name", wanted) != wanted:
        refuse("transformer", transformer["_class_name"], wanted)
    if has_second(index):
        refuse("transformer_2", index["transformer_2"], None)
    if index.get("boundary_ratio") is not None:
        refuse("boundary_ratio", index["boundary_ratio"], None)
    if index.get("expand_timesteps") is None and vae.get("is_residual") is True:
        index["expand_timesteps"] = True
    if index.get("expand_timesteps") is not True:
        remedy = '; if it is of that family, write "expand_timesteps": true in its model_index.json'
        refuse("expand_timesteps", index.get("expand_timesteps"), True, remedy)
    for side in ("in_channels", "out_channels"):
        if transformer.get(side) != vae.get("z_dim"):
            refuse(f"{side} of the transformer", transformer.get(side), vae.get("z_dim"))
    return index


def fuse_lora(transformer: Any, file: str | Path) -> None:
    """Adds a LoRA file to the transformer's weights; see `vlmteach.reasoners.lora_file.fuse_lora`.

    Raises:
        ValueError: for a file of which not every tensor has its place in the transformer.
    """
    layers = layers_of(name for name, _ in transformer.named_parameters())
    lora_file.fuse_lora(transformer, file, originals(layers))
