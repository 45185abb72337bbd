"""A preset's models at full size with random weights: no checkpoint is read.

On the meta device they take no memory and can be counted; on a GPU they take the memory and the
time of the real ones. `vlmteach.plan.known` has what the real checkpoints' configs say.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from vlmteach.plan.known import architecture

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.models import Models

META = torch.device("meta")


def build(config: Config, device: torch.device) -> Models:
    """All of a run's models in the dtypes they are loaded in, frozen, with the LoRA attached.

    Text encoders are on the meta device whatever `device` is: an update never uses them.

    Raises:
        ValueError: for a checkpoint whose architecture is not known, or a family that is not built
            here.
    """
    from benchmarks.speed import random_models
    from vlmteach.lora import InstanceLora
    from vlmteach.models import Models, targets_of

    if device.type == "meta" and config.reasoner.family == "hunyuan15":
        raise ValueError(
            "reasoner.family: got 'hunyuan15', which goes by the values of its tensors, expected a "
            "family that can be counted without them; time it on a GPU, or take another preset"
        )
    reasoner = random_models.reasoner(config, architecture(config.reasoner.checkpoint), device)
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=targets_of(reasoner, config.lora),
    )
    watching = architecture(config.teacher.checkpoint)
    return Models(
        reasoner=reasoner,
        decoder=random_models.decoder(config, reasoner, device),
        teacher=random_models.teacher(config.teacher, watching, device),
        lora=lora,
    )
