"""A small randomly initialised InternVL checkpoint in the on-disk layout of the real ones.

Everything but size is as in `OpenGVLab/InternVL3-8B-hf`: file names, config keys, tensor names,
special tokens, chat layout. A tile is 56 x 56 pixels and 4 tokens instead of 448 x 448 and 256.
"""

from __future__ import annotations

from pathlib import Path

from vlmteach.builtin.qwen_text import save_json, save_text_files
from vlmteach.builtin.qwen_vl import save_weights

_TILE = 56
_TOKENS = 4
_PIXELS = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": _TILE, "width": _TILE},
}
_SPECIAL = [
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>",
    "<video>",
]  # fmt: skip
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Tokens that its processor asks the tokenizer for by name."""
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}
{%- elif part.type == 'video' -%}{{ '<video>\\n' }}
{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}"""
"""InternVL's chat."""
_HUB_NAMES = {
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}


def save_random_internvl(folder: Path, *, seed: int = 0) -> None:
    """Writes a random InternVL of about 0.2 M parameters: 2 vision layers, 2 Qwen2 text layers.

    Deterministic in `seed`; the global generator is not touched. Layer scale, an absolute position
    embedding, a class token and grouped-query attention as in the 8B, whose output embeddings are
    untied too.
    """
    ids = save_text_files(folder, template=TEMPLATE, more_special=_SPECIAL, named=NAMED)
    text = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "max_position_embeddings": 32768,
        "max_window_layers": 2,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "torch_dtype": "float32",
    }
    vision = {
        "architectures": ["InternVisionModel"],
        "model_type": "internvl_vision",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 32,
        "image_size": [_TILE, _TILE],
        "intermediate_size": 64,
        "layer_norm_eps": 1e-6,
        "layer_scale_init_value": 0.1,
        "norm_type": "layer_norm",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": [14, 14],
        "projection_dropout": 0.0,
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    }
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": _TOKENS,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    tiling = {"crop_to_patches": False, "min_patches": 1, "max_patches": 12}
    save_json(
        folder,
        {
            "config.json": config,
            "preprocessor_config.json": {
                **_PIXELS,
                **tiling,
                "image_processor_type": "GotOcr2ImageProcessorFast",
            },
            "processor_config.json": {
                "image_seq_length": _TOKENS,
                "processor_class": "InternVLProcessor",
            },
        },
    )
    save_weights(folder, seed, renames=_HUB_NAMES)
