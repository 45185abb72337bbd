"""Parts of a checkpoint in diffusers' layout: loaded strictly, or lent to a device for a pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call


def load_part(model: Any, checkpoint: str | Path, part: str, **options: torch.dtype) -> Any:
    """One part; both libraries would only warn of missing weights and go on with random ones.

    Args:
        model: a class of diffusers or transformers.
        checkpoint: a local folder or a hub id.
        part: the subfolder.
        options: `torch_dtype` for diffusers, `dtype` for transformers.

    Raises:
        ValueError: weights are missing.
    """
    network, report = model.from_pretrained(
        checkpoint, subfolder=part, use_safetensors=True, output_loading_info=True, **options
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"checkpoint: got {str(checkpoint)!r} without {len(missing)} weights of {part} "
            f"({', '.join(missing[:3])}), expected all of them; download it again"
        )
    return network


def read_config(model: Any, checkpoint: str | Path, part: str | None = None) -> dict[str, Any]:
    """What a part's config says; `part` None is the pipeline's index."""
    return dict(model.load_config(checkpoint, subfolder=part))


def lent(module: torch.nn.Module, device: torch.device) -> Callable[..., Any]:
    """The module as a function on `device`; its own weights stay where they are.

    For encoders that are large and needed once per instance: the copies are dropped after the call.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        weights = chain(module.named_parameters(), module.named_buffers())
        copies = {name: tensor.to(device) for name, tensor in weights}
        return functional_call(module, copies, arguments, named)

    return call
