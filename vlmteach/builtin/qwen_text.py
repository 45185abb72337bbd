"""The text side of a small Qwen-VL checkpoint: a byte-level tokenizer and a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
_ADDED = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
_THINKING = [
    "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip

# Answers come first: an earlier merge wins, so these are single tokens whatever follows.
_WORDS = [
    "Yes", "No", "yes", "no", "YES", "NO", "user", "assistant", "system", "seconds", "the",
    "video", "By", "end", "of", "does", "Does", "Is", "is", "in", "it", "to", "a", "and", "or",
    "with", "Answer", "by", "at", "on", "ball", "square", "red", "blue", "green", "yellow",
    "circle", "reach", "move", "stay", "without", "goal", "question", "process", "first", "frame",
    "object", "wall", "path", "color", "same", "shape", "only", "target",
]  # fmt: skip

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}"""
"""Qwen-VL's chat, without a system turn of the template's own."""
_SYSTEM_TURN = (
    "{%- if loop.first and message.role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
)
"""Qwen2.5's template opens with a system turn of its own; Qwen3's does not."""


def byte_level_bpe(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of 256 bytes and merges that make each word one token, bare and after a space.

    Each word is split by the merges made so far and its pieces are joined from the left, so no
    word can break one before it.
    """
    from tokenizers import pre_tokenizers

    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for spelling in [prefix + word for word in words for prefix in ("", "Ġ")]:
        pieces = list(spelling)
        for left, right in merges:
            pieces = _joined(pieces, left, right)
        for right in pieces[1:]:
            left = pieces[0]
            merges.append((left, right))
            vocabulary.setdefault(left + right, len(vocabulary))
            pieces[0] = left + right
    return vocabulary, merges


def _joined(pieces: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and out[-1] == left and piece == right:
            out[-1] = left + right
        else:
            out.append(piece)
    return out


def save_text_files(
    folder: Path,
    *,
    opens_with_system_turn: bool = False,
    thinks: bool = False,
    template: str = TEMPLATE,
    more_special: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Writes tokenizer, chat template and generation config; returns the special tokens' ids.

    The vocabulary is 256 bytes, common words bare and after a space ("Yes" and "No" in all their
    spellings among them), and Qwen's special tokens in their order on the hub.

    Args:
        folder: made if it does not exist.
        opens_with_system_turn: the template puts a system turn first, as Qwen2.5's.
        thinks: with the tool response and thinking tokens that Qwen3 added.
        template: of the chat; Qwen-VL's own by default.
        more_special: special tokens of another family, behind Qwen's.
        named: tokens that the family's processor asks the tokenizer for by name.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocabulary, merges = byte_level_bpe(_WORDS)
    special = [*_SPECIAL, *more_special]
    added = [*_SPECIAL, *_ADDED, *(_THINKING if thinks else []), *more_special]
    ids = {token: len(vocabulary) + i for i, token in enumerate(added)}
    if opens_with_system_turn:
        template = template.replace("<|im_start|>", f"{_SYSTEM_TURN}<|im_start|>", 1)

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    tokenizer.backend_tokenizer.add_tokens(
        [AddedToken(t, special=t in special, normalized=False) for t in ids]
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    tokenizer_config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": t, **flags, "special": t in special} for t, i in ids.items()
        },
        "additional_special_tokens": special[1:],
        "bos_token": None,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        **({"extra_special_tokens": dict(named), **named} if named else {}),
    }
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_json(
        folder,
        {
            "vocab.json": vocabulary,
            "tokenizer_config.json": tokenizer_config,
            "chat_template.json": {"chat_template": template},
            "generation_config.json": {
                "bos_token_id": ids["<|endoftext|>"],
                "pad_token_id": ids["<|endoftext|>"],
                "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 20,
                "repetition_penalty": 1.05,
            },
        },
    )
    return ids


def save_json(folder: Path, files: dict[str, Any]) -> None:
    """Writes each file's content as JSON."""
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
