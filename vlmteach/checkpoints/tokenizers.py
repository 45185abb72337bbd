"""Tokenizers as transformers loads them, never with code that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmteach.checkpoints.files import AGAIN, CheckpointError
from vlmteach.checkpoints.weights import loading


def load_tokenizer(checkpoint: str | Path, part: str = "") -> Any:
    """The tokenizer of a checkpoint.

    Args:
        checkpoint: a local folder or a hub id.
        part: the subfolder.

    Raises:
        CheckpointError: it cannot be loaded, or knows no words.
    """
    from transformers import AutoTokenizer

    where = Path(checkpoint) / part
    with loading(where):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint, subfolder=part, trust_remote_code=False
        )
        known = len(tokenizer.encode("Yes", add_special_tokens=False))
    if not known:  # transformers makes one without a vocabulary where the files are missing
        raise CheckpointError(
            f"{where}: got a tokenizer that gives no token for 'Yes', expected the checkpoint's "
            f"own; {AGAIN}"
        )
    return tokenizer


def refuse_beyond(tokenizer: Any, network: Any, **named: tuple[str, int]) -> None:
    """Refuses a tokenizer that is another network's.

    Args:
        tokenizer: from `load_tokenizer`.
        network: of transformers.
        named: what a token stands for -> the token, and its id as the network's config states it.

    Raises:
        CheckpointError: it has ids without a row in the embedding, or other ids than stated.
    """
    rows = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"teacher: got a tokenizer of {len(tokenizer)} tokens for an embedding of {rows}, "
            "expected a row for each; take the tokenizer that belongs to the weights"
        )
    for role, (token, stated) in named.items():
        if (found := tokenizer.convert_tokens_to_ids(token)) != stated:
            raise CheckpointError(
                f"teacher: got id {found} for the {role} token {token!r}, expected {stated} as in "
                "config.json; take the tokenizer that belongs to the weights"
            )
