"""A run's models, `fit.checkpointing: auto` settled: every entrance loads them here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmteach import models

if TYPE_CHECKING:
    import torch

    from vlmteach.config import Config


def load(config: Config, device: torch.device) -> models.Models:
    """`vlmteach.models.load`, with the checkpointing that a plan chooses where it is auto.

    The choice is made before a weight is there, so that memory which is free is free.

    Raises:
        ValueError: for a checkpoint that does not fit, or with auto cannot be planned.
    """
    if config.fit.checkpointing == "auto":
        from vlmteach.plan.price import chosen

        mode = chosen(config, device)
        config = replace(config, fit=replace(config.fit, checkpointing=mode))
    return models.load(config, device)
