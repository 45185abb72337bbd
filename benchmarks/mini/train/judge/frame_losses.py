"""The dense losses of a tower that sees one frame at a time, 3 x 3 tokens of 3 x 3 places each."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train.judge.tokens import SIDE, TOKENS
from benchmarks.mini.train.teacher.dense_losses import DenseLosses

_PLACES = 3
"""Along each side of a token."""


class FrameLosses(DenseLosses):
    """Which colours a visual token shows; not part of the judge."""

    tokens = TOKENS
    places = first_places = _PLACES**2

    def cells(self, shares: Tensor) -> Tensor:
        """[B, T, H, W, 8] -> [B, T tokens, places, 8], means over the places of each token."""
        return self.first_cells(shares.flatten(0, 1)).reshape(len(shares), -1, self.places, 8)

    def first_cells(self, shares: Tensor) -> Tensor:
        """[B, H, W, 8] of a frame -> [B, tokens, places, 8]."""
        means = F.adaptive_avg_pool2d(shares.permute(0, 3, 1, 2), SIDE * _PLACES)
        cut = means.reshape(-1, 8, SIDE, _PLACES, SIDE, _PLACES).permute(0, 2, 4, 3, 5, 1)
        return cut.reshape(-1, TOKENS, self.places, 8)
