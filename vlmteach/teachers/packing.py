"""One sequence for several questions about one video, exact to the last digit.

Each question's prompt is [prefix, suffix]: the prefix ends with the video, the suffix holds the
question. Packed, the sequence is [prefix, suffix 1, suffix 2, ...]; every suffix keeps the
positions it has in its own prompt and sees the prefix and itself. Attention and positions are then
those of one prompt at a time, and the video is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question as it would be asked alone, with the answer's tokens but the last appended."""

    ids: Tensor
    """[S] token ids."""
    positions: Tensor
    """[axes, S] positions: three axes (t, h, w) for M-RoPE, else one."""
    prefix: int
    """Tokens up to the end of the video, the same in every prompt."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What one forward pass of the model reads besides pixels."""

    ids: Tensor
    """[1, S] token ids."""
    positions: Tensor
    """[axes, 1, S] positions."""
    mask: Tensor | None
    """[1, 1, S, S], True where row may see column; None for plain causal attention."""
    scored: Tensor
    """[Q * A] indices into S whose logits predict the answer's tokens, question by question."""


def pack(prompts: Sequence[Prompt], answer_length: int) -> Packed:
    """Packs prompts that share their prefix into one sequence.

    Args:
        prompts: at least one; each ends with the answer's tokens but the last.
        answer_length: A, tokens of the answer.
    """
    import torch

    first = prompts[0]
    prefix = first.prefix
    assert all(torch.equal(p.ids[:prefix], first.ids[:prefix]) for p in prompts)
    assert all(torch.equal(p.positions[:, :prefix], first.positions[:, :prefix]) for p in prompts)
    ids = torch.cat([first.ids[:prefix], *(p.ids[prefix:] for p in prompts)])
    positions = torch.cat(
        [first.positions[:, :prefix], *(p.positions[:, prefix:] for p in prompts)], dim=1
    )
    lengths = torch.tensor([len(p.ids) - prefix for p in prompts])
    ends = prefix + lengths.cumsum(0)
    scored = (ends[:, None] - answer_length + torch.arange(answer_length)).flatten()  # [Q, A]
    mask = None
    if len(prompts) > 1:
        # Owner of each token: 0 for the prefix, q for suffix q.
        owner = torch.arange(len(prompts) + 1).repeat_interleave(
            torch.cat([torch.tensor([prefix]), lengths])
        )
        seen = (owner == 0) | (owner == owner[:, None])
        mask = (seen & torch.ones_like(seen).tril())[None, None]
    return Packed(ids=ids[None], positions=positions[:, None], mask=mask, scored=scored)
