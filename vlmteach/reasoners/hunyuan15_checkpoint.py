"""Reading a HunyuanVideo-1.5 checkpoint: what is refused, and what is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
)
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import HunyuanVideo15Pipeline
from transformers import (
    Qwen2_5_VLTextModel,
    SiglipImageProcessorPil,
    SiglipVisionModel,
    T5EncoderModel,
)

from vlmteach.checkpoints.tokenizers import load_tokenizer
from vlmteach.checkpoints.weights import loading
from vlmteach.reasoners.parts import load_part, read_configs

_EXPECTED = "the layout of hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v"


@dataclass(frozen=True, slots=True)
class HunyuanParts:
    """The parts of a checkpoint, on the CPU.

    Typed loosely, as diffusers' own annotations do not hold up under a type checker.
    """

    transformer: Any
    """A `HunyuanVideo15Transformer3DModel`."""
    vae: Any
    """An `AutoencoderKLHunyuanVideo15`."""
    text_encoder: Any
    """The language model of a Qwen2.5-VL: it reads the prompt."""
    tokenizer: Any
    glyph_encoder: Any
    """ByT5's encoder: it reads what the prompt puts in quotation marks, letter by letter."""
    glyph_tokenizer: Any
    image_encoder: Any | None
    """A `SiglipVisionModel`; None in a text-to-video checkpoint."""
    image_processor: Any | None


def load_parts(checkpoint: str | Path, dtype: torch.dtype, vae_dtype: torch.dtype) -> HunyuanParts:
    """Loads the parts of a local folder or a hub id in diffusers' layout; safetensors only.

    All are in `dtype` but the VAE, which is in `vae_dtype`.

    Raises:
        ValueError: for a checkpoint that is not HunyuanVideo-1.5's.
    """
    index = _check(checkpoint)
    has_images = index.get("image_encoder") not in (None, [None, None], (None, None))
    image_encoder = image_processor = None
    if has_images:
        image_encoder = load_part(SiglipVisionModel, checkpoint, "image_encoder", dtype=dtype)
        # The class without torchvision, as diffusers itself would get where there is none.
        with loading(Path(checkpoint) / "feature_extractor"):
            image_processor = SiglipImageProcessorPil.from_pretrained(
                checkpoint, subfolder="feature_extractor"
            )
    return HunyuanParts(
        transformer=load_part(
            HunyuanVideo15Transformer3DModel, checkpoint, "transformer", torch_dtype=dtype
        ),
        vae=load_part(AutoencoderKLHunyuanVideo15, checkpoint, "vae", torch_dtype=vae_dtype),
        text_encoder=load_part(Qwen2_5_VLTextModel, checkpoint, "text_encoder", dtype=dtype),
        tokenizer=load_tokenizer(checkpoint, "tokenizer"),
        glyph_encoder=load_part(T5EncoderModel, checkpoint, "text_encoder_2", dtype=dtype),
        glyph_tokenizer=load_tokenizer(checkpoint, "tokenizer_2"),
        image_encoder=image_encoder,
        image_processor=image_processor,
    )


def _check(checkpoint: str | Path) -> dict[str, Any]:
    """The pipeline's index; refuses, before any weight is read, what would be sampled wrongly."""
    index, transformer, vae = read_configs(
        checkpoint,
        _EXPECTED,
        {
            None: HunyuanVideo15Pipeline,
            "transformer": HunyuanVideo15Transformer3DModel,
            "vae": AutoencoderKLHunyuanVideo15,
        },
    )

    def refuse(what: str, got: object, expected: object) -> None:
        raise ValueError(
            f"checkpoint: got {str(checkpoint)!r} with {what} {got!r}, expected {expected!r}; only "
            "HunyuanVideo-1.5's text-to-video and image-to-video models are supported, not its "
            "upsamplers or HunyuanVideo 1"
        )

    wanted = HunyuanVideo15Transformer3DModel.__name__
    if transformer.get("_class_name", wanted) != wanted:
        refuse("transformer", transformer["_class_name"], wanted)
    channels = vae["latent_channels"]
    if transformer["out_channels"] != channels:
        refuse("out_channels of the transformer", transformer["out_channels"], channels)
    # Noisy latents, the first frame's latents, and one channel of mask.
    if transformer["in_channels"] != 2 * channels + 1:
        refuse("in_channels of the transformer", transformer["in_channels"], 2 * channels + 1)
    return index
