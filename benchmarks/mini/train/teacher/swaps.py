"""Words exchanged in requests and replies, so that the writer reads what it names.

The train split lacks two fifths of the pairs of words (`vlmteach.mini.world.splits`). A writer that
sees nothing else learns the gaps: asked to paint the ring green, which no training task asks, it
writes another colour. Two exchanges take that lesson away; what is to be written is never a
missing pair.

- A word of the task becomes one that is neither colour nor shape, in the request and in what is to
  be written: it has to be copied, whatever it is.
- Words of the reply so far become other colours and shapes, while what is to be written stays:
  what comes next follows from the task and the image, not from the word before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.mini.train.teacher.rows import Rows
from vlmteach.mini.world import COLOURS, SHAPES, vocabulary

_TASK = 0.3
"""Chance of the first exchange, per row; each word of the task then takes part with `_WORD`."""
_WORD = 0.7
_REPLY = 0.75
"""Chance of the second, per row; each colour and shape then becomes another with `_OTHER`."""
_OTHER = 0.6


class Swaps:
    """Exchanges words; the same draws exchange the same.

    Args:
        tokenizer: one that has every word of the world as one token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._kinds = [_tokens(tokenizer, COLOURS), _tokens(tokenizer, SHAPES)]
        named = {*COLOURS, *SHAPES, "yes", "no"}
        self._foreign = _tokens(
            tokenizer, (w for w in vocabulary() if w.isalpha() and w not in named)
        )

    def __call__(self, rows: Rows, draw: torch.Generator) -> Rows:
        """Rows of requests with some words exchanged; those given stay as they are."""
        ids, targets = rows.ids.clone(), rows.targets.clone()
        for row, start in enumerate((rows.scored[:, 0] + 1).tolist()):
            if _chance(_TASK, draw):
                self._exchange_task(ids[row], targets[row], start, draw)
            if _chance(_REPLY, draw):
                self._exchange_reply(ids[row, start:], draw)
        return replace(rows, ids=ids, targets=targets)

    def _exchange_task(
        self, ids: Tensor, targets: Tensor, start: int, draw: torch.Generator
    ) -> None:
        for word in torch.cat(self._kinds).tolist():
            if (ids[:start] == word).any() and _chance(_WORD, draw):
                other = _any(self._foreign, draw)
                ids[ids == word] = other
                targets[targets == word] = other

    def _exchange_reply(self, reply: Tensor, draw: torch.Generator) -> None:
        for kind in self._kinds:
            for place in torch.isin(reply, kind).nonzero()[:, 0].tolist():
                if _chance(_OTHER, draw):
                    reply[place] = _any(kind, draw)


def _tokens(tokenizer: Any, words: Iterable[str]) -> Tensor:
    ids = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
    return torch.tensor([one for one, *more in ids if not more])


def _any(options: Tensor, draw: torch.Generator) -> Tensor:
    return options[int(torch.randint(len(options), (), generator=draw))]


def _chance(share: float, draw: torch.Generator) -> bool:
    return float(torch.rand((), generator=draw)) < share
