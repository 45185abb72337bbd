"""The speaker's checkpoint folder: the teacher's, with further tokens after its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.mini.train.speaking.phrases import phrases
from benchmarks.mini.train.teacher.training import save_weights
from vlmteach.builtin.qwen_text import save_json
from vlmteach.seeding import generator

_EMBEDDING = "model.language_model.embed_tokens.weight"
_ROUND = 16
"""The vocabulary's size is a multiple of it."""


def save_speaker(teacher: Path, folder: Path) -> None:
    """Writes a speaker that has learnt nothing yet.

    Every id of the teacher's keeps its meaning and its embedding; a further token begins at the
    mean of the tokens that the teacher would read in its place, and a little beside it: long texts
    have much the same mean.

    Args:
        teacher: its folder.
        folder: created or overwritten.
    """
    from tokenizers import AddedToken, Tokenizer

    shutil.copytree(teacher, folder, dirs_exist_ok=True)
    tokenizer: Any = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    known = tokenizer.get_vocab()
    added = [text for text in phrases() if text not in known]
    pieces = [tokenizer.encode(text, add_special_tokens=False).ids for text in added]
    first = len(known)
    assert max(known.values()) == first - 1
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    tokenizer.save(str(folder / "tokenizer.json"))

    told = json.loads((teacher / "tokenizer_config.json").read_text(encoding="utf-8"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    told["added_tokens_decoder"] |= {
        str(first + place): {"content": text, **flags, "special": False}
        for place, text in enumerate(added)
    }
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    rows = -(-(first + len(added)) // _ROUND) * _ROUND
    config["text_config"]["vocab_size"] = rows
    save_json(folder, {"tokenizer_config.json": told, "config.json": config})

    weights = load_file(teacher / "model.safetensors")
    old = weights[_EMBEDDING].float()
    new = torch.zeros(rows, old.shape[1])
    new[: len(old)] = old
    beside = (
        0.5 * old[:first].std() * torch.randn(new.shape, generator=generator(0, _EMBEDDING, "new"))
    )
    for place, ids in enumerate(pieces):
        new[first + place] = old[ids].mean(0) + beside[first + place]
    save_weights(weights | {_EMBEDDING: new}, folder)
