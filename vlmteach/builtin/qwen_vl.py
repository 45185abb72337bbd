"""Small randomly initialised Qwen-VL checkpoints in the on-disk layout of the real ones.

Everything but size is as on the hub: file names, config keys, tensor names, special tokens, chat
layout. What runs on these runs on `Qwen/Qwen3-VL-*-Instruct` and `Qwen/Qwen2.5-VL-*-Instruct`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.builtin.qwen_text import save_json, save_text_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def save_random_qwen3_vl(folder: Path, *, seed: int = 0) -> None:
    """Writes a random Qwen3-VL of about 0.3 M parameters: 3 vision layers, 2 text layers.

    Deterministic in `seed`; the global generator is not touched. Deepstack taps, grouped-query
    attention, interleaved M-RoPE and tied embeddings as in the 4B.
    """
    ids = save_text_files(folder, opens_with_system_turn=False, thinks=True)
    text = {
        "model_type": "qwen3_vl_text",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
        },
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "dtype": "float32",
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0, 1],
    }
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        **_token_ids(ids),
    }
    pixels = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, **_HALF}
    files: dict[str, Any] = {
        "preprocessor_config.json": {
            "size": {"shortest_edge": 65536, "longest_edge": 16777216},
            **pixels,
            "processor_class": "Qwen3VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            "size": {"shortest_edge": 4096, "longest_edge": 25165824},
            **pixels,
            "processor_class": "Qwen3VLProcessor",
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }
    save_json(folder, {"config.json": config, **files})
    save_weights(folder, seed, renames={})


def save_random_qwen2_5_vl(folder: Path, *, seed: int = 0) -> None:
    """Writes a random Qwen2.5-VL of about 0.3 M parameters: 2 vision layers, 2 text layers.

    Deterministic in `seed`; the global generator is not touched. Window attention, M-RoPE in
    sections, untied output embeddings and the older tensor names as in the 7B; like the hub's,
    it has no video_preprocessor_config.json.
    """
    ids = save_text_files(folder, opens_with_system_turn=True, thinks=False)
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "max_position_embeddings": 128000,
        "max_window_layers": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "float32",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        **_token_ids(ids),
        "vision_config": {
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }
    files = {
        "preprocessor_config.json": {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            **_CLIP,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
    }
    save_json(folder, {"config.json": config, **files})
    save_weights(
        folder, seed, renames={"model.visual.": "visual.", "model.language_model.": "model."}
    )


def _token_ids(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def save_weights(folder: Path, seed: int, renames: dict[str, str]) -> None:
    """Draws every tensor of the model that config.json describes and writes model.safetensors."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, empty in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for ours, hub in renames.items():
            name = name.replace(ours, hub) if name.startswith(ours) else name
        weights[name] = _draw(name, empty.shape, generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Variance-preserving weights: the answer then moves with the pixels, and smoothly."""
    import torch

    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.1 * noise
    if len(shape) == 1:
        return 1 + 0.1 * noise
    return noise / shape[1:].numel() ** 0.5
