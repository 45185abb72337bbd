"""The judge's checkpoint folder without its weights: an InternVL in the layout of `...-HF`.

Its tokenizer is made as the teacher's, with InternVL's own special tokens. A frame is a tile of
30 x 30 pixels, so what it sees is cut elsewhere than the world's cells, the autoencoder's places
and the teacher's patches are.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.mini.train.teacher import tokens as teacher
from benchmarks.mini.train.teacher.tokens import Width
from vlmteach.builtin.internvl import NAMED, TEMPLATE
from vlmteach.builtin.qwen_text import save_json
from vlmteach.mini.world import FRAMES

TILE = 30
"""Side of what it sees of a frame, in pixels; a frame's 32 are resized to it."""
PATCH = 5
SHUFFLE = 2
"""Patches by patches that pixel shuffle makes a token of."""
SIDE = TILE // PATCH // SHUFFLE
TOKENS = SIDE**2
"""Per frame."""

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
)  # fmt: skip
MARKS = ("Frame1: ", *(f"\nFrame{number}: " for number in range(2, FRAMES + 1)))
"""What stands before each frame, as `InternVLTeacher` writes it."""


def save_folder(folder: Path, width: Width) -> None:
    """Writes all files of an InternVL checkpoint but model.safetensors; its text is Qwen3's, as
    InternVL3.5's."""
    ids = teacher.save_text_files(
        folder, template=TEMPLATE, special=SPECIAL, named=NAMED, marks=MARKS
    )
    count = max(ids.values()) + 1
    text = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": -(-count // 16) * 16,
        "hidden_size": width.hidden,
        "intermediate_size": width.inner,
        "num_hidden_layers": width.layers,
        "num_attention_heads": width.heads,
        "num_key_value_heads": width.heads,
        "head_dim": width.hidden // width.heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "dtype": "float32",
    }
    vision = {
        "architectures": ["InternVisionModel"],
        "model_type": "internvl_vision",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": width.vision_hidden,
        "image_size": [TILE, TILE],
        "intermediate_size": width.vision_inner,
        "layer_norm_eps": 1e-6,
        "layer_scale_init_value": 1.0,
        "norm_type": "layer_norm",
        "num_attention_heads": width.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": width.vision_layers,
        "patch_size": [PATCH, PATCH],
        "projection_dropout": 0.0,
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    }
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": 1 / SHUFFLE,
        "image_seq_length": TOKENS,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": True,
    }
    pixels = {
        "crop_to_patches": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5],
        "max_patches": 12,
        "min_patches": 1,
        "processor_class": "InternVLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": TILE, "width": TILE},
    }
    save_json(
        folder,
        {
            "config.json": config,
            "preprocessor_config.json": pixels,
            "processor_config.json": {
                "image_seq_length": TOKENS,
                "processor_class": "InternVLProcessor",
            },
        },
    )
