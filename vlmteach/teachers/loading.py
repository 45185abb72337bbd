"""From the config to a teacher; also for whoever watches or writes with one and fits nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vlmteach.checkpoints.files import CheckpointError, read_json
from vlmteach.checkpoints.find import find, loading_of
from vlmteach.checkpoints.hollow import hollow_device
from vlmteach.config import TeacherConfig
from vlmteach.families import TEACHERS, family_class
from vlmteach.teachers.base import Teacher

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_teacher(config: TeacherConfig, device: torch.device, checkpointing: bool) -> Teacher:
    """The teacher that a config names, frozen.

    Args:
        config: names its family and its checkpoint.
        device: where everything lives.
        checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: for a family that cannot be imported, or a checkpoint that does not fit it.
    """
    family: type[Teacher] = family_class(TEACHERS, config.family)
    checkpoint = find(config.checkpoint, "teacher", config.family)
    with loading_of("teacher", config.family, checkpoint):
        teacher = family.load(
            checkpoint,
            dtype=DTYPES[config.dtype],
            device=device,
            frame_pixels=config.frame_pixels,
            video_tokens=config.video_tokens,
            share_video=True,
            checkpointing=checkpointing,
        )
        if config.family in TEACHERS and hollow_device() is None:
            _try(teacher, checkpoint)
    return teacher


def beside(teacher: TeacherConfig, checkpoint: str) -> TeacherConfig:
    """The settings of another model that watches what a teacher does, such as a judge.

    Its family is its checkpoint's own; a checkpoint that names none of the house's is taken for one
    of the teacher's family.

    Args:
        teacher: how many frames of which size.
        checkpoint: a local path, a hub id or `builtin:NAME`.

    Raises:
        ValueError: no such checkpoint, or one that cannot be used.
    """
    if teacher.family not in TEACHERS:
        return replace(teacher, checkpoint=checkpoint)
    folder = Path(find(checkpoint, "teacher", teacher.family))
    kind = (read_json(folder / "config.json") or {}).get("model_type")
    family = kind if kind in TEACHERS else teacher.family
    return replace(teacher, checkpoint=checkpoint, family=family)


def _try(teacher: Teacher, checkpoint: str) -> None:
    """Asks about one grey frame: a config may be garbage in ways that only a pass shows.

    Raises:
        CheckpointError: the answer is no number.
    """
    question = teacher.prepare(["Is it grey?"], [0.0], 32, 32)
    with torch.no_grad():
        answer = teacher.log_p_yes(torch.full((1, 3, 32, 32), 0.5), question)
    if not answer.isfinite().all():
        raise CheckpointError(
            f'teacher {checkpoint}: got log P("Yes") {answer.item()} of a grey frame, expected a '
            "number; try teacher.dtype float32, or check config.json"
        )
