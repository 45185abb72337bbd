"""A preset's models at full size with random weights: no checkpoint is read.

On the meta device they take no memory and can be counted; on a GPU they take the memory and the
time of the real ones. `architectures/` holds what the real checkpoints' configs say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vlmteach.config import Config, DecoderConfig, ReasonerConfig, TeacherConfig
    from vlmteach.decoders.base import Decoder
    from vlmteach.models import Models
    from vlmteach.reasoners.wan import WanReasoner
    from vlmteach.teachers.qwen_vl import QwenVLTeacher

ARCHITECTURES = Path(__file__).parent / "architectures"
WAN = "wan22_ti2v_5b"
HUNYUAN = "hunyuan15_480p_i2v"
REAL = {
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": WAN,
    "yetter-ai/Wan2.2-TI2V-5B-Turbo-Diffusers": WAN,
    "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers": WAN,
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": "wan22_i2v_a14b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl_4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl_8b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3_8b",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled": HUNYUAN,
}
"""Checkpoints that presets name -> the architecture they share."""
META = torch.device("meta")


def architecture(checkpoint: str) -> dict[str, Any]:
    """What the configs of a checkpoint say, by name of the part or of the field.

    Raises:
        ValueError: for a checkpoint whose architecture is not known here.
    """
    if checkpoint not in REAL:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, expected one of {', '.join(REAL)}; take a preset "
            "that names real checkpoints, or add the architecture to benchmarks/speed/architectures"
        )
    return json.loads((ARCHITECTURES / f"{REAL[checkpoint]}.json").read_text(encoding="utf-8"))


def build(config: Config, device: torch.device) -> Models:
    """All of a run's models in the dtypes they are loaded in, frozen, with the LoRA attached.

    The text encoder is on the meta device whatever `device` is: an update never uses it.

    Raises:
        ValueError: for a checkpoint whose architecture is not known, or a family that is not built
            here.
    """
    from vlmteach.lora import InstanceLora
    from vlmteach.models import Models, targets_of

    for part, family, built in (
        ("reasoner", config.reasoner.family, "wan"),
        ("teacher", config.teacher.family, "qwen3_vl"),
    ):
        if family != built:
            raise ValueError(
                f"{part}.family: got {family!r}, expected {built!r}, the only one that is timed; "
                "take another preset"
            )
    reasoner = _reasoner(config.reasoner, device)
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=targets_of(reasoner, config.lora),
    )
    return Models(
        reasoner=reasoner,
        decoder=_decoder(config.decoder, reasoner, device),
        teacher=_teacher(config.teacher, device),
        lora=lora,
    )


def _reasoner(config: ReasonerConfig, device: torch.device) -> WanReasoner:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from vlmteach.builtin.paths import builtin_path
    from vlmteach.checkpoints.tokenizers import load_tokenizer
    from vlmteach.models import DTYPES
    from vlmteach.reasoners.wan import WanReasoner
    from vlmteach.reasoners.wan_checkpoint import WanParts

    real = architecture(config.checkpoint)
    with device:
        transformer: Any = WanTransformer3DModel(**real["transformer"])
        vae = AutoencoderKLWan(**real["vae"])
    with META:
        text_encoder = UMT5EncoderModel(UMT5Config(**real["text_encoder"]))
    kept = transformer._keep_in_fp32_modules  # as `from_pretrained` does it
    for name, parameter in transformer.named_parameters():
        if not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(DTYPES[config.dtype])
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(DTYPES[config.vae_dtype])
    parts = WanParts(
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(builtin_path("random/wan"), "tokenizer"),
    )
    return WanReasoner(parts, device=device, accepts="both")


def _decoder(config: DecoderConfig, reasoner: WanReasoner, device: torch.device) -> Decoder:
    from vlmteach.builtin.taehv import FULL_WIDTHS
    from vlmteach.decoders.full import FullDecoder
    from vlmteach.decoders.taehv import TaehvDecoder
    from vlmteach.decoders.taehv_file import Architecture
    from vlmteach.models import DTYPES

    if config.family == "full":
        return FullDecoder(reasoner.vae)
    taew2_2 = Architecture("base", reasoner.facts.latent_channels, FULL_WIDTHS["taew2_2"], patch=2)
    with device:
        network = taew2_2.build().to(DTYPES[config.dtype])
    return TaehvDecoder(taew2_2, network.eval().requires_grad_(False), vae_latents=False)


def _teacher(config: TeacherConfig, device: torch.device) -> QwenVLTeacher:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

    from vlmteach.builtin.paths import builtin_path
    from vlmteach.models import DTYPES
    from vlmteach.teachers import processor_files
    from vlmteach.teachers.qwen_network import batched_vision_attention, linear_patch_embedding
    from vlmteach.teachers.qwen_vl import Qwen3VLTeacher
    from vlmteach.teachers.templates import chat_template

    # The builtin's text side has the real chat layout and about as many tokens for a question.
    text = builtin_path("random/qwen3_vl")
    stated = json.loads((text / "config.json").read_text(encoding="utf-8"))
    ids = {name: value for name, value in stated.items() if name.endswith("_token_id")}
    real = AutoConfig.for_model(**architecture(config.checkpoint), **ids)
    with device:
        network = AutoModelForImageTextToText.from_config(
            real, dtype=DTYPES[config.dtype], attn_implementation="sdpa"
        )
    network.tie_weights()
    linear_patch_embedding(network)
    batched_vision_attention(network)
    tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    image, video = processor_files.patch_specs(text)
    return Qwen3VLTeacher(
        network.requires_grad_(False).eval(),
        tokenizer,
        template=chat_template(text, tokenizer),
        video=video,
        image=image,
        frame_pixels=config.frame_pixels,
        video_tokens=config.video_tokens,
        share_video=True,
        checkpointing=False,
    )
