"""A family's models from what their configs say, with random weights: no checkpoint is read.

Tokenizers, chat templates and preprocessor files are those of the builtin random checkpoints, which
have the real layout and about as many tokens for a question. Encoders are on the meta device
whatever the device is: an update never uses them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from vlmteach.config import Config, ReasonerConfig, TeacherConfig
    from vlmteach.decoders.base import Decoder
    from vlmteach.reasoners.base import Condition, Reasoner
    from vlmteach.teachers.base import Teacher
    from vlmteach.types import ClipSpec

Architecture = Mapping[str, Any]
"""What a checkpoint's configs say, by name of the part or of the field."""
META = torch.device("meta")
TEXT_TOKENS = 512
"""Of a made-up prompt's embedding: what Wan pads to, and more than HunyuanVideo-1.5 needs."""
IMAGE_TOKENS = 729
"""Of SigLIP's embedding of a first frame, 27 x 27."""
BOUNDARY = 900.0
"""First timestep of Wan2.2-A14B's high-noise expert, of its image-to-video checkpoint."""


def reasoner(config: Config, real: Architecture, device: torch.device) -> Reasoner:
    """The reasoner of a config, frozen.

    Args:
        config: says family, dtypes, ladder and the rungs that carry gradient.
        real: what the checkpoint's configs say, by part.
        device: where transformer and VAE are.

    Raises:
        ValueError: for a family that is not built here.
    """
    return _of(_REASONERS, "reasoner", config.reasoner.family)(config, real, device)


def teacher(
    config: TeacherConfig,
    real: Architecture,
    device: torch.device,
) -> Teacher:
    """The teacher of a config, frozen, all queries in one pass.

    Args:
        config: says family, dtype and frame size.
        real: what the checkpoint's config says, by field.
        device: where it is.

    Raises:
        ValueError: for a family that is not built here.
    """
    network, text = _network(config, real, device)
    make, quicken = _of(_TEACHERS, "teacher", config.family)
    quicken(network)
    return make(config, network.requires_grad_(False).eval(), text)


def decoder(config: Config, of: Reasoner, device: torch.device, widths: Any = None) -> Decoder:
    """The decoder of a config for a reasoner's latents, frozen.

    Args:
        config: says family and dtype.
        of: the reasoner.
        device: where it is.
        widths: channels of the surrogate's stages; those of the published files when None.
    """
    from vlmteach.builtin.taehv import FULL_WIDTHS
    from vlmteach.decoders.taehv import TaehvDecoder
    from vlmteach.decoders.taehv_file import Architecture as Layers
    from vlmteach.models import DTYPES

    if config.decoder.family == "full":
        return of.full_decoder(checkpointing=False)
    channels, stride = of.facts.latent_channels, of.facts.spatial_stride
    layers = Layers("base", channels, widths or FULL_WIDTHS["taew2_2"], patch=stride // 8)
    with device:
        network = layers.build().to(DTYPES[config.decoder.dtype])
    return TaehvDecoder(layers, network.eval().requires_grad_(False), vae_latents=False)


def condition(of: Reasoner, clip: ClipSpec) -> Condition:
    """A made-up instance as the reasoner is told it: random embedding, random first frame."""
    from vlmteach.reasoners.base import Condition
    from vlmteach.reasoners.hunyuan15 import HunyuanCondition, HunyuanReasoner
    from vlmteach.reasoners.wan_a14b import ChannelCondition, WanA14BReasoner

    network: Any = of.network
    _, channels, *frames = of.latent_shape(clip)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, device=of.device)

    if isinstance(of, HunyuanReasoner):
        sizes = network.config
        return HunyuanCondition(
            text=draw(TEXT_TOKENS, sizes.text_embed_dim),
            first_latent=None,
            glyphs=draw(0, sizes.text_embed_2_dim),
            image=draw(IMAGE_TOKENS, sizes.image_embed_dim),
            known=draw(channels + 1, *frames),
        )
    text = draw(TEXT_TOKENS, network.config.text_dim)
    if isinstance(of, WanA14BReasoner):
        given = network.config.in_channels - channels
        known = draw(given, *frames) if given else None
        return ChannelCondition(text=text, first_latent=None, known=known)
    return Condition(text=text, first_latent=draw(channels, 1, *frames[1:]))


def _of(table: Mapping[str, Any], part: str, family: str) -> Any:
    if family not in table:
        raise ValueError(
            f"{part}.family: got {family!r}, expected one of {', '.join(table)}, which are built "
            "with random weights; take another preset"
        )
    return table[family]


def _cast(network: nn.Module, dtype: torch.dtype, kept: Any = ()) -> None:
    for name, parameter in network.named_parameters():
        if not set(kept or ()) & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _transformer(make: Any, real: Architecture, config: ReasonerConfig, device: Any) -> Any:
    from vlmteach.models import DTYPES

    with device:
        made = make(**real["transformer"])
    _cast(made, DTYPES[config.dtype], made._keep_in_fp32_modules)  # as `from_pretrained` does it
    return made


def _wan_parts(config: ReasonerConfig, real: Architecture, device: torch.device) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from vlmteach.builtin.paths import builtin_path
    from vlmteach.checkpoints.tokenizers import load_tokenizer
    from vlmteach.models import DTYPES
    from vlmteach.reasoners.wan_checkpoint import WanParts

    with device:
        vae = AutoencoderKLWan(**real["vae"])
    _cast(vae, DTYPES[config.vae_dtype])
    with META:
        text_encoder = UMT5EncoderModel(UMT5Config(**real["text_encoder"]))
    return WanParts(
        transformer=_transformer(WanTransformer3DModel, real, config, device),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(builtin_path("random/wan"), "tokenizer"),
    )


def _wan(config: Config, real: Architecture, device: torch.device) -> Reasoner:
    from vlmteach.reasoners.wan import WanReasoner

    return WanReasoner(_wan_parts(config.reasoner, real, device), device=device, accepts="both")


def _wan_a14b(config: Config, real: Architecture, device: torch.device) -> Reasoner:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    from vlmteach.reasoners.wan_a14b import WanA14BReasoner, expert_of
    from vlmteach.rollout import gradient_span

    ladder = config.reasoner.ladder
    stop, grad_from = gradient_span(config.fit.gradient, len(ladder))
    return WanA14BReasoner(
        _wan_parts(config.reasoner, real, device),
        _transformer(WanTransformer3DModel, real, config.reasoner, device),
        carrier=expert_of(BOUNDARY, ladder, range(grad_from, stop + 1)),
        boundary=BOUNDARY,
        device=device,
        accepts="both",
    )


def _hunyuan15(config: Config, real: Architecture, device: torch.device) -> Reasoner:
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
        AutoencoderKLHunyuanVideo15,
    )
    from diffusers.models.transformers.transformer_hunyuan_video15 import (
        HunyuanVideo15Transformer3DModel,
    )

    from vlmteach.models import DTYPES
    from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
    from vlmteach.reasoners.hunyuan15_checkpoint import HunyuanParts

    with device:
        vae = AutoencoderKLHunyuanVideo15(**real["vae"])
    _cast(vae, DTYPES[config.reasoner.vae_dtype])
    # Its three encoders' configs are not among the architectures: a condition is made up.
    parts = HunyuanParts(
        transformer=_transformer(HunyuanVideo15Transformer3DModel, real, config.reasoner, device),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        glyph_encoder=None,
        glyph_tokenizer=None,
        image_encoder=None,
        image_processor=None,
    )
    return HunyuanReasoner(parts, device=device, accepts="both")


def _network(config: TeacherConfig, real: Architecture, device: torch.device) -> tuple[Any, Path]:
    """The network, and the folder its text side is read from."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlmteach.builtin.paths import builtin_path
    from vlmteach.models import DTYPES

    text = builtin_path(f"random/{config.family}")
    stated = json.loads((text / "config.json").read_text(encoding="utf-8"))
    ids = {name: value for name, value in stated.items() if name.endswith("_token_id")}
    sizes = AutoConfig.for_model(**{**real, **ids})
    with device:
        network = AutoModelForImageTextToText.from_config(
            sizes, dtype=DTYPES[config.dtype], attn_implementation="sdpa"
        )
    network.tie_weights()
    return network, text


def _text_side(config: TeacherConfig, text: Path) -> tuple[Any, dict[str, Any]]:
    from vlmteach.checkpoints.tokenizers import load_tokenizer
    from vlmteach.teachers.templates import chat_template

    tokenizer = load_tokenizer(text)
    return tokenizer, {
        "template": chat_template(text, tokenizer),
        "frame_pixels": config.frame_pixels,
        "share_video": True,
        "checkpointing": False,
    }


def _qwen(name: str) -> Callable[..., Teacher]:
    def make(config: TeacherConfig, network: Any, text: Path) -> Teacher:
        from vlmteach.teachers import processor_files, qwen_vl

        image, video = processor_files.patch_specs(text)
        tokenizer, asked = _text_side(config, text)
        kind: Any = getattr(qwen_vl, name)
        return kind(network, tokenizer, video=video, image=image, **asked)

    return make


def _internvl(config: TeacherConfig, network: Any, text: Path) -> Teacher:
    from vlmteach.teachers.internvl import InternVLTeacher
    from vlmteach.teachers.tiles import tile_specs

    stated = json.loads((text / "config.json").read_text(encoding="utf-8"))
    specs = tile_specs(text, tuple(stated["vision_config"]["image_size"]))
    # The builtin's tiles are small; the colours and everything else are the real ones.
    image, video = (replace(one, size=_tile(network)) for one in specs)
    tokenizer, asked = _text_side(config, text)
    return InternVLTeacher(network, tokenizer, video=video, image=image, **asked)


def _tile(network: Any) -> tuple[int, int]:
    height, width = network.config.vision_config.image_size
    return height, width


def _quick_qwen3(network: Any) -> None:
    from vlmteach.teachers.qwen_network import batched_vision_attention, linear_patch_embedding

    linear_patch_embedding(network)
    batched_vision_attention(network)


def _quick_qwen2_5(network: Any) -> None:
    from vlmteach.teachers.qwen_network import linear_patch_embedding

    linear_patch_embedding(network)


_REASONERS: Mapping[str, Callable[..., Reasoner]] = {
    "wan": _wan,
    "wan_a14b": _wan_a14b,
    "hunyuan15": _hunyuan15,
}
_TEACHERS: Mapping[str, tuple[Callable[..., Teacher], Callable[[Any], None]]] = {
    "qwen3_vl": (_qwen("Qwen3VLTeacher"), _quick_qwen3),
    "qwen2_5_vl": (_qwen("Qwen2_5VLTeacher"), _quick_qwen2_5),
    "internvl": (_internvl, lambda network: None),
}
"""Family -> how it is made of a network, and what its loader does to the network for speed."""
