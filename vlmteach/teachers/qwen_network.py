"""The frozen Qwen-VL network as transformers loads it, with one exact change for speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Family = Literal["qwen3_vl", "qwen2_5_vl"]


def load_network(
    checkpoint: str | Path, *, family: Family, dtype: torch.dtype, checkpointing: bool
) -> Any:
    """The family's `...ForConditionalGeneration`, frozen, in eval mode, writing greedily.

    Raises:
        ValueError: the checkpoint is of another family or has dropout.
    """
    from transformers import (
        AutoConfig,
        GenerationConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLForConditionalGeneration,
    )

    config = AutoConfig.from_pretrained(checkpoint)
    if config.model_type != family:
        raise ValueError(
            f"teacher {checkpoint}: got model_type {config.model_type!r}, expected {family!r}; "
            "set teacher.family to the checkpoint's"
        )
    if config.text_config.attention_dropout:
        raise ValueError(
            f"teacher {checkpoint}: got attention_dropout {config.text_config.attention_dropout}, "
            "expected 0; set it to 0 in config.json"
        )
    classes = {
        "qwen3_vl": Qwen3VLForConditionalGeneration,
        "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    }
    network = classes[family].from_pretrained(
        checkpoint, dtype=dtype, use_safetensors=True, attn_implementation="sdpa"
    )
    linear_patch_embedding(network)
    if checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    # Greedy, whatever the checkpoint recommends: temperature and repetition penalty are dropped.
    stated = network.generation_config
    network.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=stated.eos_token_id, pad_token_id=stated.pad_token_id
    )
    return network.requires_grad_(False).eval()


def linear_patch_embedding(network: Any) -> None:
    """Puts the linear layer that it is in the place of the patch embedding's Conv3d, in place.

    Kernel and stride are equal, so each patch meets the kernel once. The convolution's backward
    pass costs more than the rest of the tower. (transformers' `fusion_config` makes the same
    exchange, but in the class and for the whole process.)
    """
    from torch import nn

    conv = network.model.visual.patch_embed.proj
    assert isinstance(conv, nn.Conv3d)
    assert conv.kernel_size == conv.stride
    rows = conv.weight.detach().flatten(1)
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(rows)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    network.model.visual.patch_embed = linear
