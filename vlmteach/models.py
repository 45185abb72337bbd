"""The frozen models of a run, built from the config once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vlmteach.builtin.paths import builtin_path
from vlmteach.config import Config, DecoderConfig, TeacherConfig
from vlmteach.decoders.base import Decoder
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.base import Reasoner
from vlmteach.rollout import gradient_span
from vlmteach.teachers.base import Teacher

if TYPE_CHECKING:
    from vlmteach.reasoners.wan_a14b import Expert

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


def _load_reasoner(config: Config, device: torch.device) -> Reasoner:
    reasoner = config.reasoner
    load_family: Callable[..., Reasoner]
    if reasoner.family == "hunyuan15":
        from vlmteach.reasoners.hunyuan15 import HunyuanReasoner

        if reasoner.distillation_lora is not None:
            raise ValueError(
                f"reasoner.distillation_lora: got {reasoner.distillation_lora!r} for hunyuan15, "
                "expected none; take a step-distilled checkpoint"
            )
        load_family = HunyuanReasoner.load
    elif reasoner.family == "wan_a14b":
        from vlmteach.reasoners.wan_a14b import WanA14BReasoner

        carrier = _carrier(config)
        assert carrier is not None
        load_family = partial(
            WanA14BReasoner.load, carrier=carrier, distillation_lora=reasoner.distillation_lora
        )
    else:
        from vlmteach.reasoners.wan import WanReasoner

        load_family = partial(WanReasoner.load, distillation_lora=reasoner.distillation_lora)
    return load_family(
        resolve(reasoner.checkpoint),
        dtype=DTYPES[reasoner.dtype],
        device=device,
        accepts=reasoner.accepts,
        checkpointing=config.fit.checkpointing,
    )


def _carrier(config: Config) -> Expert | None:
    """Which of two experts carries the adapter; None where there is only one network."""
    if config.reasoner.family != "wan_a14b":
        return None
    from vlmteach.reasoners.wan_a14b import boundary_of, expert_of

    ladder, mode = config.reasoner.ladder, config.fit.gradient
    stop, grad_from = gradient_span(mode, len(ladder))
    boundary = boundary_of(resolve(config.reasoner.checkpoint))
    return expert_of(boundary, ladder, range(grad_from, stop + 1), mode)


def _load_decoder(
    config: DecoderConfig, reasoner: Reasoner, device: torch.device, checkpointing: bool
) -> Decoder:
    if config.family == "full":
        from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
            AutoencoderKLHunyuanVideo15,
        )

        from vlmteach.decoders.full import FullDecoder
        from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder

        if isinstance(reasoner.vae, AutoencoderKLHunyuanVideo15):
            return HunyuanFullDecoder(reasoner.vae, checkpointing=checkpointing)

        return FullDecoder(reasoner.vae, checkpointing=checkpointing)
    if config.checkpoint is None:
        raise ValueError(
            "decoder.checkpoint: got nothing, expected a TAEHV safetensors file; name one, or set "
            "decoder.family to full"
        )
    from vlmteach.decoders.taehv import TaehvDecoder

    path = resolve(config.checkpoint)
    return TaehvDecoder.load(path, dtype=DTYPES[config.dtype], device=device)


def load_teacher(config: TeacherConfig, device: torch.device, checkpointing: bool) -> Teacher:
    if config.family == "internvl":
        from vlmteach.teachers.internvl import InternVLTeacher

        load_family = InternVLTeacher.load
    else:
        from vlmteach.teachers.qwen_vl import QwenVLTeacher

        load_family = partial(QwenVLTeacher.load, family=config.family)
    return load_family(
        resolve(config.checkpoint),
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
    reasoner = _load_reasoner(config, device)
    decoder = _load_decoder(config.decoder, reasoner, device, config.fit.checkpointing)
    for fact in ("latent_channels", "spatial_stride", "temporal_stride"):
        got, expected = getattr(decoder.facts, fact), getattr(reasoner.facts, fact)
        if got != expected:
            raise ValueError(
                f"decoder.checkpoint: got a decoder with {fact} {got}, expected the reasoner's "
                f"{expected}; take the surrogate of the same VAE (Wan2.2-5B: taew2_2, "
                "HunyuanVideo-1.5: taehv1_5)"
            )
    teacher = load_teacher(config.teacher, device, config.fit.checkpointing)
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=reasoner.lora_targets[config.lora.targets],
    )
    return Models(reasoner=reasoner, decoder=decoder, teacher=teacher, lora=lora)


def are_shared(one: Config, other: Config) -> bool:
    """Whether `load` gives the same models for both configs.

    How many frames the teacher watches and at which rungs is sampled do not enter the models.
    """

    def parts(config: Config) -> tuple[object, ...]:
        return (
            replace(config.reasoner, ladder=(1.0,)),
            config.decoder,
            replace(config.teacher, frames=1),
            config.lora,
            config.fit.checkpointing,
            _carrier(config),
        )

    return parts(one) == parts(other)
