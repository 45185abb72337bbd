"""The frozen models of a run, built from the config once per process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vlmteach.config import Config, DecoderConfig, ReasonerConfig, TeacherConfig
from vlmteach.decoders.base import Decoder
from vlmteach.lora import InstanceLora
from vlmteach.mini.builtin import builtin_path
from vlmteach.reasoners.base import Reasoner
from vlmteach.teachers.base import Teacher

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Models:
    """Reasoner, decoder and teacher on one device, and the one LoRA on the reasoner.

    A plain object on purpose: as submodules of the per-instance LightningModule they would be
    scanned, moved and saved with every fit.
    """

    reasoner: Reasoner
    decoder: Decoder
    teacher: Teacher
    lora: InstanceLora


def resolve(checkpoint: str) -> str:
    """`builtin:NAME` -> the path of a checkpoint of the package; anything else as it is.

    A checkpoint that looks like a path and does not exist is refused here, before a hub client
    takes it for a repository.

    Raises:
        ValueError: for an unknown builtin or a path that does not exist.
    """
    if checkpoint.startswith("builtin:"):
        return str(builtin_path(checkpoint.removeprefix("builtin:")))
    path = Path(checkpoint).expanduser()
    if path.exists():
        return str(path)
    is_file_name = checkpoint.startswith((".", "/", "~")) or path.suffix == ".safetensors"
    if is_file_name or checkpoint.count("/") != 1:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, which is no file or folder, expected a local path, "
            "a hub id of the form owner/name, or builtin:NAME"
        )
    return checkpoint


def _load_reasoner(config: ReasonerConfig, device: torch.device, checkpointing: bool) -> Reasoner:
    from vlmteach.reasoners.wan import WanReasoner

    return WanReasoner.load(
        resolve(config.checkpoint),
        dtype=DTYPES[config.dtype],
        device=device,
        accepts=config.accepts,
        distillation_lora=config.distillation_lora,
        checkpointing=checkpointing,
    )


def _load_decoder(
    config: DecoderConfig, reasoner: Reasoner, device: torch.device, checkpointing: bool
) -> Decoder:
    if config.family == "full":
        from vlmteach.decoders.full import FullDecoder

        return FullDecoder(reasoner.vae, checkpointing=checkpointing)
    if config.checkpoint is None:
        raise ValueError(
            "decoder.checkpoint: got nothing, expected a TAEHV safetensors file; name one, or set "
            "decoder.family to full"
        )
    from vlmteach.decoders.taehv import TaehvDecoder

    path = resolve(config.checkpoint)
    return TaehvDecoder.load(path, dtype=DTYPES[config.dtype], device=device)


def _load_teacher(config: TeacherConfig, device: torch.device, checkpointing: bool) -> Teacher:
    from vlmteach.teachers.qwen_vl import QwenVLTeacher

    return QwenVLTeacher.load(
        resolve(config.checkpoint),
        family=config.family,
        dtype=DTYPES[config.dtype],
        device=device,
        frame_pixels=config.frame_pixels,
        share_video=config.share_video,
        checkpointing=checkpointing,
    )


def load(config: Config, device: torch.device) -> Models:
    """Loads and freezes everything, and attaches the LoRA.

    Raises:
        ValueError: when parts do not fit together (a decoder of another latent space, a ladder
            rung that does not exist, a checkpoint of another kind).
    """
    reasoner = _load_reasoner(config.reasoner, device, config.fit.checkpointing)
    decoder = _load_decoder(config.decoder, reasoner, device, config.fit.checkpointing)
    for fact in ("latent_channels", "spatial_stride", "temporal_stride"):
        got, expected = getattr(decoder.facts, fact), getattr(reasoner.facts, fact)
        if got != expected:
            raise ValueError(
                f"decoder.checkpoint: got a decoder with {fact} {got}, expected the reasoner's "
                f"{expected}; take the surrogate of the same VAE (Wan2.2-5B: taew2_2)"
            )
    teacher = _load_teacher(config.teacher, device, config.fit.checkpointing)
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=reasoner.lora_targets[config.lora.targets],
    )
    return Models(reasoner=reasoner, decoder=decoder, teacher=teacher, lora=lora)
