"""A frozen network as transformers loads it, and what is refused before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_network(
    checkpoint: str | Path, *, family: str, dtype: torch.dtype, checkpointing: bool
) -> Any:
    """The family's `...ForConditionalGeneration`, frozen, in eval mode, writing greedily.

    Args:
        checkpoint: a local folder or a hub id.
        family: transformers' `model_type`.
        dtype: of the weights.
        checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: the checkpoint is of another family or has dropout.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    config = AutoConfig.from_pretrained(checkpoint)
    if config.model_type != family:
        raise ValueError(
            f"teacher {checkpoint}: got model_type {config.model_type!r}, expected {family!r}; "
            "set teacher.family to the checkpoint's"
        )
    for part in (config.text_config, config.vision_config):
        for name, value in part.to_dict().items():
            if "dropout" in name and value:
                raise ValueError(
                    f"teacher {checkpoint}: got {name} {value}, expected 0; set it to 0 in "
                    "config.json"
                )
    network: Any = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=dtype, use_safetensors=True, attn_implementation="sdpa"
    )
    if checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
    # Greedy, whatever the checkpoint recommends: temperature and repetition penalty are dropped.
    stated = network.generation_config
    network.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=stated.eos_token_id, pad_token_id=stated.pad_token_id
    )
    return network.requires_grad_(False).eval()
