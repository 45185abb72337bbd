"""A frozen network as transformers loads it, and what is refused before it is read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.hollow import hollow_device
from vlmteach.checkpoints.weights import (
    few,
    loading,
    refuse_larger,
    refuse_not_finite,
    refuse_unused,
    tensors,
)

_OLD_NAMES = {
    r"^(model\.)?visual\.": "model.visual.",
    r"^(language_model\.)?lm_head\.": "lm_head.",
    r"^(language_model\.)?model\.(?!visual|language_model)": "model.language_model.",
}
"""What the parts of a Qwen-VL were called before transformers 4.52, and by other programs."""


def load_network(checkpoint: str | Path, *, family: str, dtype: torch.dtype) -> Any:
    """The family's `...ForConditionalGeneration`, frozen, in eval mode, writing greedily.

    Args:
        checkpoint: a local folder or a hub id.
        family: transformers' `model_type`.
        dtype: of the weights.

    Raises:
        CheckpointError: the checkpoint is of another family or has dropout, or not every one of
            its tensors is used.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    with loading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    if config.model_type != family:
        raise CheckpointError(
            f"teacher {checkpoint}: got model_type {config.model_type!r}, expected {family!r}; "
            "set teacher.family to the checkpoint's"
        )
    for part in (config.text_config, config.vision_config):
        for name, value in part.to_dict().items():
            if "dropout" in name and value:
                raise CheckpointError(
                    f"teacher {checkpoint}: got {name} {value}, expected 0; set it to 0 in "
                    "config.json"
                )
    # Stated for the whole or for its language model, according to the program that wrote it.
    config.tie_word_embeddings = config.tie_word_embeddings or config.text_config.to_dict().get(
        "tie_word_embeddings", False
    )
    if (device := hollow_device()) is not None:
        with loading(checkpoint), device:
            built: Any = AutoModelForImageTextToText.from_config(
                config, dtype=dtype, attn_implementation="sdpa"
            )
        built.tie_weights()
        return built.requires_grad_(False).eval()
    with loading(checkpoint), torch.device("meta"):
        refuse_larger(checkpoint, AutoModelForImageTextToText.from_config(config))
    with loading(checkpoint):
        load: Any = AutoModelForImageTextToText.from_pretrained
        loaded = load(
            checkpoint,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            key_mapping=_OLD_NAMES if family.startswith("qwen") else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
    network, report = loaded
    refuse_unused(checkpoint, report)
    if Path(checkpoint).is_dir():
        _refuse_twice(Path(checkpoint), network)
    refuse_not_finite(checkpoint, network.named_parameters())
    # Greedy, whatever the checkpoint recommends: temperature and repetition penalty are dropped.
    stated = network.generation_config
    network.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=stated.eos_token_id, pad_token_id=stated.pad_token_id
    )
    return network.requires_grad_(False).eval()


def _refuse_twice(folder: Path, network: Any) -> None:
    """Refuses tensors that are in the files under an old name and a new one: one would be lost."""
    names = [n for n in tensors(folder) if not re.search("inv_freq|position_ids", n)]
    meant = Counter(_own_name(name) for name in names)
    if twice := [name for name in sorted(names) if meant[_own_name(name)] > 1]:
        raise CheckpointError(
            f"{folder}: got {few(twice)}, names of which two mean the same tensor, expected each "
            "once; remove those of the older naming"
        )


def _own_name(tensor: str) -> str:
    """A tensor's name without those of the parts that it has lain in."""
    return re.sub(r"^((base_)?model\.|language_model\.)+", "", tensor)
