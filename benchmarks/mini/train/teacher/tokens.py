"""The teacher's checkpoint folder without its weights: tokenizer, chat template, configuration.

The tokenizer is byte-level as Qwen's, so it reads any text. The world's words are single tokens,
and so are the phrases that always come in one piece (times, the answer's instruction, the request
for queries): a question costs a tenth of the tokens it costs the real teacher.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmteach.builtin.qwen_text import TEMPLATE, save_json
from vlmteach.mini.world import FRAMES, SIZE, vocabulary

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PATCH = 4
"""Pixels; two by two of them are a token, so 16 tokens show two frames."""
MERGE = 2
TEMPORAL = 2
PATCHES = SIZE // PATCH
TOKENS = (PATCHES // MERGE) ** 2
"""Tokens per temporal patch."""
PERIODS = -(-FRAMES // TEMPORAL)
"""Temporal patches of a whole video."""

_JSON = ('{"goal": "', '", "process": ["', '", "', '"]}')


@dataclass(frozen=True, slots=True)
class Width:
    """Size of a teacher."""

    hidden: int = 128
    layers: int = 5
    heads: int = 4
    inner: int = 320
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 3
    vision_inner: int = 256


TIMES = tuple(f"<{tenths / 10:.1f} seconds>" for tenths in range(20))
"""What Qwen3-VL is told before each temporal patch."""


def _phrases(marks: Sequence[str]) -> list[str]:
    """Texts that always come in one piece."""
    from vlmteach.queries import MAX_PROCESS, REQUEST, REQUEST_START, generic_queries
    from vlmteach.teachers.chat import INSTRUCTION

    request = [line for line in re.split(r"\n|\{\w+\}", REQUEST) if len(line) > 3]
    request = [line.replace("{{", "{").replace("}}", "}") for line in request]
    request += [REQUEST_START, "one to 3 questions"]
    generic = [query.text for query in generic_queries(MAX_PROCESS)]
    return [*marks, f" {INSTRUCTION}", "By the end of the video,", *_JSON, *request, *generic]


def save_text_files(
    folder: Path,
    *,
    template: str = TEMPLATE,
    special: Sequence[str] = SPECIAL,
    named: Mapping[str, str] | None = None,
    marks: Sequence[str] = TIMES,
) -> dict[str, int]:
    """Writes tokenizer, chat template and generation config; returns the added tokens' ids.

    Args:
        folder: made if it does not exist.
        template: of the chat.
        special: tokens, the first of which ends a text.
        named: tokens that the family's processor asks the tokenizer for by name.
        marks: what stands before the frames of a video.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    from vlmteach.builtin.qwen_text import byte_level_bpe

    words = [w for w in vocabulary() if w.isalpha()]
    words = ["Yes", "No", *words, *(w.capitalize() for w in words if w not in ("yes", "no"))]
    pieces, merges = byte_level_bpe([*words, "user", "assistant"])
    added = [*special, *dict.fromkeys(_phrases(marks))]
    ids = {token: len(pieces) + i for i, token in enumerate(added)}

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Qwen2Tokenizer(vocab=pieces, merges=merges)  # type: ignore[arg-type]
    tokenizer.backend_tokenizer.add_tokens(
        [AddedToken(t, special=t in special, normalized=False) for t in ids]
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_json(
        folder,
        {
            "vocab.json": pieces,
            "tokenizer_config.json": {
                "add_bos_token": False,
                "add_prefix_space": False,
                "added_tokens_decoder": {
                    str(i): {"content": t, **flags, "special": t in special} for t, i in ids.items()
                },
                "additional_special_tokens": list(special[1:]),
                "bos_token": None,
                "chat_template": template,
                "clean_up_tokenization_spaces": False,
                "eos_token": "<|im_end|>",
                "errors": "replace",
                "model_max_length": 4096,
                "pad_token": "<|endoftext|>",
                "split_special_tokens": False,
                "tokenizer_class": "Qwen2Tokenizer",
                "unk_token": None,
                **({"extra_special_tokens": dict(named), **named} if named else {}),
            },
            "chat_template.json": {"chat_template": template},
            "generation_config.json": {
                "bos_token_id": ids["<|endoftext|>"],
                "pad_token_id": ids["<|endoftext|>"],
                "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
                "do_sample": False,
            },
        },
    )
    return ids


def save_folder(folder: Path, width: Width) -> None:
    """Writes all files of a Qwen3-VL checkpoint but model.safetensors."""
    ids = save_text_files(folder)
    count = max(ids.values()) + 1
    text = {
        "model_type": "qwen3_vl_text",
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
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": _sections(width.hidden // width.heads // 2),
        },
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "dtype": "float32",
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": width.vision_layers,
        "hidden_size": width.vision_hidden,
        "intermediate_size": width.vision_inner,
        "num_heads": width.vision_heads,
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": TEMPORAL,
        "out_hidden_size": width.hidden,
        "num_position_embeddings": PATCHES**2,
        "deepstack_visual_indexes": [],
    }
    pixels = {
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL,
        "merge_size": MERGE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": SIZE**2, "longest_edge": SIZE**2 * 64},
        "processor_class": "Qwen3VLProcessor",
    }
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    save_json(
        folder,
        {
            "config.json": config,
            "preprocessor_config.json": {
                **pixels,
                "image_processor_type": "Qwen2VLImageProcessorFast",
            },
            "video_preprocessor_config.json": {
                **pixels,
                "video_processor_type": "Qwen3VLVideoProcessor",
            },
        },
    )


def _sections(half: int) -> list[int]:
    """Rotary frequencies of the axes t, h, w: what three does not divide goes to t."""
    each = half // 3
    return [half - 2 * each, each, each]
