"""Dense losses: what the teacher should be able to read off its own tokens, place by place.

A yes or no says little about where to look. These losses say which colours each visual token shows,
where the acting colour is and should be, and how good each answer's score is. None of their parts
is of the teacher.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmteach.mini.world import COLOURS, FRAMES, GOAL_POWER, PART_POWER
from vlmteach.mini.world.draw import GROUND


class DenseLosses(nn.Module):
    """Which colours a visual token shows, coarsely placed: a dense loss that soon teaches the
    tower to see, and ties what it sees to the colours' words. Not part of the teacher."""

    tokens = 16
    """Visual tokens of a temporal patch."""
    places = 2 * 4
    """That a visual token shows: two frames of 2 x 2."""
    first_places = 4
    """Of them in the first frame."""

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        # Fixed and random: the tower learns to be read, the reader does not learn to read.
        self.reader = torch.randn(self.places * 8, hidden, generator=draw) * hidden**-0.5
        self.back = torch.randn(self.first_places * 8, hidden, generator=draw) * hidden**-0.5
        # The last norm begins at a fifth; these two are to be sharp from the start.
        self.where = torch.randn(3 * 2 * 16, hidden, generator=draw) * 5 * hidden**-0.5
        self.grade = torch.randn(hidden, generator=draw) * 5 * hidden**-0.5

    def loss(self, seen: Tensor, shares: Tensor, embedding: Tensor, words: Tensor) -> Tensor:
        """The colours of each visual token's places, and their names.

        Args:
            seen: [B, V, C], the tower's visual tokens.
            shares: [B, T, H, W, 8] of `colour_shares`; where a token shows two frames, an odd T
                counts its last frame twice.
            embedding: [vocabulary, C] of the teacher's words.
            words: [7], the colours' token ids.
        """
        cells = self.cells(shares)
        normal = seen * torch.rsqrt(seen.pow(2).mean(-1, keepdim=True) + 1e-6)
        told = (normal @ self.reader.T).unflatten(-1, (-1, 8))
        placed = -(cells * told.log_softmax(-1)).sum(-1).mean()
        named = (normal @ embedding[words].T) * 0.5
        present = (cells[..., 1:].mean(2) * 8).clamp(0, 1)
        return placed + F.binary_cross_entropy_with_logits(named, present)

    def cells(self, shares: Tensor) -> Tensor:
        """[B, T, H, W, 8] -> [B, V, places, 8], means over the places of each visual token."""
        if shares.shape[1] % 2:
            shares = torch.cat([shares, shares[:, -1:]], 1)
        b, t = shares.shape[:2]
        # [B, T, H, W, 8] -> [B, T/2, 2, 4, 2, 4, 4, 2, 4, 8], then the mean over 4 x 4 pixels
        cells = shares.reshape(b, t // 2, 2, 4, 2, 4, 4, 2, 4, 8).mean((5, 8))
        return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, 8, 8)

    def first_cells(self, shares: Tensor) -> Tensor:
        """[B, H, W, 8] of the first frame -> [B, tokens, first_places, 8]."""
        first = shares.reshape(len(shares), 4, 2, 4, 4, 2, 4, 8).mean((3, 6))  # [B, 4, 2, 4, 2, 8]
        return first.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4, 8)

    def remembered(self, hidden: Tensor, shares: Tensor) -> Tensor:
        """What each place showed in the first frame, read off its tokens of all frames.

        Args:
            hidden: [B, V, C], the last layer's states of the visual tokens.
            shares: [B, T, H, W, 8] of `colour_shares`.
        """
        first = self.first_cells(shares[:, 0])[:, None]
        told = (hidden @ self.back.T).unflatten(1, (-1, self.tokens)).unflatten(-1, (-1, 8))
        return -(first * told.log_softmax(-1)).sum(-1).mean()

    def pointed(self, hidden: Tensor, shares: Tensor, acting: Tensor) -> Tensor:
        """Where the acting colour is half-way, where in the end, and where it should be in the
        end, read off the answers: columns and rows of two pixels each.

        Args:
            hidden: [B, Q, C].
            shares: [B, T + 1, H, W, 8], the last frame that of the truth.
            acting: [B] indices into the shares.
        """
        some = shares[:, [FRAMES // 2, -2, -1]]  # [B, 3, H, W, 8]
        some = some.gather(-1, acting.view(-1, 1, 1, 1, 1).expand(*some.shape[:-1], 1))[..., 0]
        axes = torch.stack([some.sum(2), some.sum(3)], 2).unflatten(-1, (16, 2)).sum(-1) + 1e-2
        maps = (axes / axes.sum(-1, keepdim=True))[:, None]  # [B, 1, 3, 2, 16]
        told = (hidden @ self.where.T).unflatten(-1, (3, 2, 16))
        return -(maps * told.log_softmax(-1)).sum(-1).mean()

    def graded(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The scores behind the labels, read off the answers: a label says little far from its
        bound, a score everywhere.

        Args:
            hidden: [B, Q, C].
            labels: [B, Q], the goal's first.
        """
        powers = torch.full((labels.shape[1],), 1 / PART_POWER)
        powers[0] = 1 / GOAL_POWER
        return F.binary_cross_entropy_with_logits(hidden @ self.grade, labels**powers)


def colour_shares(frames: Tensor) -> Tensor:
    """[B, T, 3, H, W] -> [B, T, H, W, 8]: how far each pixel is the ground or one of 7 colours."""
    palette = torch.tensor(np.array([GROUND, *COLOURS.values()], np.float32))
    pixels = frames.permute(0, 1, 3, 4, 2)
    away = pixels.pow(2).sum(-1, keepdim=True) - 2 * pixels @ palette.T + palette.pow(2).sum(-1)
    return (away * -20).softmax(-1)
