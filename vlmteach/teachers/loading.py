"""From the config to a teacher; also for whoever watches or writes with one and fits nothing."""

from __future__ import annotations

import torch

from vlmteach.checkpoints.find import find, loading_of
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
        return family.load(
            checkpoint,
            dtype=DTYPES[config.dtype],
            device=device,
            frame_pixels=config.frame_pixels,
            share_video=True,
            checkpointing=checkpointing,
        )
