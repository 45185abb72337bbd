"""The frozen models of a run, built from the config once per process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vlmteach.adapter_notes import Base
from vlmteach.checkpoints.find import find, loading_of
from vlmteach.config import Config, DecoderConfig, LoraConfig
from vlmteach.decoders.base import Decoder, LoadedDecoder
from vlmteach.families import DECODERS, FULL, REASONERS, family_class
from vlmteach.job import digest_of_files
from vlmteach.lora import InstanceLora, matching
from vlmteach.reasoners.base import Reasoner
from vlmteach.recompute import MODES, Checkpointing, Recomputes
from vlmteach.rollout import gradient_span
from vlmteach.teachers.base import Teacher
from vlmteach.teachers.loading import DTYPES, load_teacher


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
    base: Base = field(default_factory=Base)
    """Of the reasoner, for the notes of its adapters."""


def _rungs(config: Config) -> range:
    """Those that carry gradient."""
    stop, grad_from = gradient_span(config.fit.gradient, len(config.reasoner.ladder))
    return range(grad_from, stop + 1)


def _load_reasoner(config: Config, device: torch.device) -> Reasoner:
    reasoner = config.reasoner
    family: type[Reasoner] = family_class(REASONERS, reasoner.family)
    with loading_of("reasoner", reasoner.family, reasoner.checkpoint):
        return family.load(
            reasoner.checkpoint,
            dtype=DTYPES[reasoner.dtype],
            vae_dtype=DTYPES[reasoner.vae_dtype],
            device=device,
            accepts=reasoner.accepts,
            distillation_lora=reasoner.distillation_lora,
            checkpointing=_recomputes(config),
            ladder=reasoner.ladder,
            rungs=_rungs(config),
        )


def _load_decoder(
    config: DecoderConfig, reasoner: Reasoner, device: torch.device, checkpointing: bool
) -> Decoder:
    if config.family == FULL:
        return reasoner.full_decoder(checkpointing=checkpointing)
    family: type[LoadedDecoder] = family_class(DECODERS, config.family)
    with loading_of("decoder", config.family, str(config.checkpoint)):
        return family.load(config.checkpoint, dtype=DTYPES[config.dtype], device=device)


def find_all(config: Config) -> Config:
    """The config with a local path for each checkpoint, all of them looked at.

    Raises:
        ValueError: for one that is not there or cannot be used.
    """
    reasoner, decoder, teacher = config.reasoner, config.decoder, config.teacher
    found = find(reasoner.checkpoint, "reasoner", reasoner.family)
    if decoder.family != FULL and decoder.checkpoint is not None:
        decoder = replace(decoder, checkpoint=find(decoder.checkpoint, "decoder", decoder.family))
    seen = find(teacher.checkpoint, "teacher", teacher.family)
    return replace(
        config,
        reasoner=replace(reasoner, checkpoint=found),
        decoder=decoder,
        teacher=replace(teacher, checkpoint=seen),
    )


def targets_of(reasoner: Reasoner, lora: LoraConfig) -> str | list[str]:
    """The layers that carry the adapter, as peft takes them: by name where only some blocks do.

    Raises:
        ValueError: for more blocks than the network has, or one without a list of blocks.
    """
    targets = reasoner.lora_targets[lora.targets]
    if lora.blocks is None:
        return targets
    count = 0
    if reasoner.blocks is not None:
        stack: Any = reasoner.network.get_submodule(reasoner.blocks)
        count = len(stack)
    if lora.blocks > count:
        expected = (
            f"at most {count}, the blocks of this reasoner"
            if count
            else "none, as this reasoner's network is no list of blocks"
        )
        raise ValueError(f"lora.blocks: got {lora.blocks}, expected {expected}")
    named = matching(reasoner.network, targets)
    last = tuple(f"{reasoner.blocks}.{number}." for number in range(count - lora.blocks, count))
    return [name for name in named if name.startswith(last)]


def load(config: Config, device: torch.device) -> Models:
    """Loads and freezes everything, and attaches the LoRA.

    Raises:
        ValueError: when parts do not fit together (a decoder of another latent space, a ladder
            rung that does not exist, a checkpoint of another kind), or a checkpoint cannot be used.
    """
    given, config = config, find_all(config)  # before the first byte of any is loaded
    reasoner = _load_reasoner(config, device)
    decoder = _load_decoder(config.decoder, reasoner, device, _recomputes(config))
    for fact in ("latent_channels", "spatial_stride", "temporal_stride"):
        got, expected = getattr(decoder.facts, fact), getattr(reasoner.facts, fact)
        if got != expected:
            raise ValueError(
                f"decoder.checkpoint: got a decoder with {fact} {got}, expected the reasoner's "
                f"{expected}; take the surrogate of the same VAE (Wan2.2-5B: taew2_2, "
                "HunyuanVideo-1.5: taehv1_5)"
            )
    teacher = load_teacher(config.teacher, device, _recomputes(config))
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=targets_of(reasoner, config.lora),
    )
    base = _base(given, config)
    models = Models(reasoner=reasoner, decoder=decoder, teacher=teacher, lora=lora, base=base)
    if config.fit.checkpointing in MODES:
        recompute(models, config.fit.checkpointing)
    return models


def _recomputes(config: Config) -> bool:
    """What families that know no more than yes or no are told; `auto` is settled afterwards."""
    return config.fit.checkpointing in ("selective", "full")


def recompute(models: Models, mode: Checkpointing) -> None:
    """Sets what the backward passes of all parts recompute; a guest's stay as they were loaded."""
    for part in (models.reasoner, models.decoder, models.teacher):
        if isinstance(part, Recomputes):
            part.recompute(mode)


def checkpointing_of(models: Models) -> Checkpointing | None:
    """The mode that the parts work in; None where none of them can be told."""
    parts = (models.reasoner, models.teacher, models.decoder)
    return next((part.checkpointing for part in parts if isinstance(part, Recomputes)), None)


def _base(given: Config, found: Config) -> Base:
    """What adapters on the reasoner are made for.

    Args:
        given: names the checkpoint.
        found: with its local path.
    """
    reasoner, path = found.reasoner, Path(found.reasoner.checkpoint)
    name, licence = given.reasoner.checkpoint, given.reasoner.licence
    if name.startswith("builtin:"):
        licence = licence or "apache-2.0"  # this package's own
    elif Path(name).expanduser().exists():
        name = Path(name).name
    digest = part = None
    if path.exists():
        family: type[Reasoner] = family_class(REASONERS, reasoner.family)
        digest = digest_of_files(path)
        if reasoner.distillation_lora is not None:
            digest += digest_of_files(Path(reasoner.distillation_lora).expanduser())
            digest = hashlib.sha256(digest.encode()).hexdigest()
        part = family.variant(str(path), reasoner.ladder, _rungs(found))
    return Base(name, digest, None if part is None else str(part), licence)


def are_shared(one: Config, other: Config) -> bool:
    """Whether `load` gives the same models for both configs.

    How many frames the teacher watches and at which rungs is sampled do not enter the models,
    unless the reasoner says so (`Reasoner.variant`), which is asked last: it reads the checkpoint.
    """

    def parts(config: Config) -> tuple[object, ...]:
        return (
            replace(config.reasoner, ladder=(1.0,)),
            config.decoder,
            replace(config.teacher, frames=1),
            replace(config.lora, init="random"),
            config.fit.checkpointing,
        )

    def variant(config: Config) -> object:
        family: type[Reasoner] = family_class(REASONERS, config.reasoner.family)
        checkpoint = find(config.reasoner.checkpoint, "reasoner", config.reasoner.family)
        return family.variant(checkpoint, config.reasoner.ladder, _rungs(config))

    def evaluated(config: Config) -> tuple[object, ...]:
        return config.reasoner.ladder, config.fit.gradient

    if parts(one) != parts(other):
        return False
    return evaluated(one) == evaluated(other) or variant(one) == variant(other)
