"""From a checkpoint's name to a local folder or file whose content has been looked at.

Headers and small files only: what is found missing or broken here has cost no loading.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from vlmteach.builtin.paths import resolve
from vlmteach.checkpoints.files import (
    AGAIN,
    CheckpointError,
    read_json,
    read_network_config,
    refuse_pointer,
)
from vlmteach.checkpoints.hollow import hollow_device
from vlmteach.checkpoints.weights import STEMS, header, loading, tensors
from vlmteach.families import DECODERS, REASONERS, TEACHERS

Kind = Literal["reasoner", "decoder", "teacher"]
TABLES = {"reasoner": REASONERS, "decoder": DECODERS, "teacher": TEACHERS}

_SMALL = ["*.json", "*.jinja", "*.txt", "*.model"]
_NETWORKS = (
    "transformer",
    "transformer_2",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "image_encoder",
)
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
_SECONDS = 5.0
"""How long the hub may take to answer before the cache is used."""


def find(checkpoint: str, kind: Kind, family: str) -> str:
    """A local path of a checkpoint, looked at.

    Args:
        checkpoint: a local path, a hub id or `builtin:NAME`.
        kind: what it is for: a reasoner's folder has a part in each subfolder, a teacher's lies at
            the top, a decoder's is one file.
        family: a guest's may have any layout, and is handed what `builtin:` means and no more.

    Raises:
        CheckpointError: a file is missing, broken, quantised or of an unsafe format, or names code.
        ValueError: no such path or builtin.
    """
    resolved = resolve(checkpoint)
    if family not in TABLES[kind]:
        return resolved
    path = Path(resolved)
    if not path.exists():
        path = fetch(checkpoint, kind)
    _look(path, kind, weights=hollow_device() is None)
    return str(path)


def _look(path: Path, kind: Kind, *, weights: bool = True) -> None:
    if path.is_file():
        header(path)
    elif kind == "teacher":
        _look_at_network(path, weights)
        _look_at_tokenizer(path)
        refuse_code(path)
    elif kind == "reasoner":
        _look_at_parts(path, weights)


def loading_of(kind: Kind, family: str, checkpoint: str) -> AbstractContextManager[None]:
    """`loading` for a family of the house; a guest's errors are its own.

    A `ValueError` is taken for a line that says it well.
    """
    if family not in TABLES[kind]:
        return nullcontext()
    return loading(checkpoint, passes=ValueError)


def _look_at_parts(folder: Path, weights: bool) -> None:
    """Looks at the parts that the index of a folder in diffusers' layout names."""
    index = read_json(folder / "model_index.json")
    for part, named in (index or {}).items():
        if not isinstance(named, list) or len(named) != 2 or named[1] is None:
            continue
        if part in _TOKENIZERS:
            _look_at_tokenizer(folder / part)
        elif part in _NETWORKS:
            _look_at_network(folder / part, weights)


def refuse_code(folder: Path) -> None:
    """Refuses a folder in which a config (`*config.json`) names Python code or a kernel to run.

    Raises:
        CheckpointError: names the file and the field.
    """
    for path in sorted(folder.glob("*config.json")):
        read_json(path)


def _look_at_network(folder: Path, weights: bool) -> None:
    if read_network_config(folder / "config.json") is None:
        raise CheckpointError(f"{folder}: got no config.json, expected one; {AGAIN}")
    if weights:
        tensors(folder)


def _look_at_tokenizer(folder: Path) -> None:
    """Looks at a tokenizer's files: without them transformers makes one that knows no word."""
    config = read_json(folder / "tokenizer_config.json") or {}
    if str(extra := config.get("extra_ids", 0)) not in map(str, range(1000)):
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: got extra_ids {str(extra)[:40]}, expected a few "
            f"hundred; {AGAIN}"
        )
    names = os.listdir(folder) if folder.is_dir() else []
    found = [n for n in names if n in _VOCABULARIES or n.endswith(".model")]
    whole = set(found) - {"vocab.json", "merges.txt"} or {"vocab.json", "merges.txt"} <= set(found)
    needs_none = "ByT5" in str(config.get("tokenizer_class"))  # its words are the bytes
    if not whole and not needs_none:
        raise CheckpointError(
            f"{folder}: got no tokenizer (tokenizer.json, vocab.json and merges.txt, vocab.txt or "
            "a .model file), expected one beside the weights; save the tokenizer there, or "
            "download it again"
        )
    for name in found:
        refuse_pointer(folder / name)


def fetch(checkpoint: str, kind: Kind) -> Path:
    """The local copy of a checkpoint on the hub; small files are fetched, and looked at, first.

    The hub is asked once. Where it does not answer, or `HF_HUB_OFFLINE` is set, the cache is used.

    Raises:
        CheckpointError: it is neither there nor in the cache, or cannot be used.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    revision, said = None, "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            revision = HfApi().model_info(checkpoint, timeout=_SECONDS).sha
        except Exception as error:  # whatever the HTTP client of the day raises
            said = f"no answer from {constants.ENDPOINT}: {type(error).__name__}: {error}"

    def download(patterns: list[str]) -> Path:
        try:
            return Path(
                snapshot_download(
                    checkpoint,
                    cache_dir=constants.HF_HUB_CACHE,
                    revision=revision,
                    local_files_only=revision is None,
                    allow_patterns=patterns,
                )
            )
        except Exception as error:
            why = said if revision is None else f"{type(error).__name__}: {error}"
            raise CheckpointError(
                f"checkpoint: got {checkpoint!r}, which is not in the cache "
                f"{constants.HF_HUB_CACHE} ({' '.join(why.split())[:300]}), expected a local "
                "folder or a hub id that can be fetched; check its name, or run `hf download "
                f"{checkpoint}` where there is a network (HF_HUB_OFFLINE=1 then uses the cache "
                "without asking)"
            ) from error

    folder = download(_SMALL)
    if revision is not None:
        _look(folder, kind, weights=False)
        download(_weights_of(folder))
    return folder


def _weights_of(folder: Path) -> list[str]:
    """Patterns of the weights that the small files of a checkpoint ask for."""
    index = read_json(folder / "model_index.json")
    parts = [""] if index is None else [f"{part}/" for part in index if part in _NETWORKS]
    return [
        f"{part}{stem}{rest}.safetensors"
        for part in parts
        for stem in STEMS
        for rest in ("", "-*-of-*")
    ]
