"""A preset's models at full size with random weights: no checkpoint is read.

On the meta device they take no memory and can be counted; on a GPU they take the memory and the
time of the real ones. `vlmteach.plan.known` has what the real checkpoints' configs say.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from vlmteach.plan.count import IntegersStayReal
from vlmteach.plan.counted import PROMPT, hollow_models
from vlmteach.plan.known import architecture

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.models import Models
    from vlmteach.reasoners.base import Condition, Reasoner
    from vlmteach.types import ClipSpec


def build(config: Config, device: torch.device) -> Models:
    """All of a run's models in the dtypes they are loaded in, frozen, with the LoRA attached.

    Text encoders are on the meta device whatever `device` is: an update never uses them.

    Raises:
        ValueError: for a checkpoint whose architecture is not known.
    """
    for part in (config.reasoner, config.teacher):
        architecture(part.checkpoint)
    return hollow_models(config, device)


def encoded(reasoner: Reasoner, clip: ClipSpec) -> Condition:
    """A prompt and a first frame as models on the meta device encode them."""
    image = Image.new("RGB", (clip.width, clip.height)) if reasoner.facts.accepts_image else None
    with IntegersStayReal():
        return reasoner.encode(PROMPT, image, clip)


def random_condition(of: Condition, device: torch.device) -> Condition:
    """Random numbers in the shapes and dtypes of a condition from the meta device."""

    def drawn(value: Any) -> Any:
        is_number = isinstance(value, torch.Tensor) and value.is_floating_point()
        return torch.randn(value.shape, dtype=value.dtype, device=device) if is_number else value

    return replace(of, **{field.name: drawn(getattr(of, field.name)) for field in fields(of)})
