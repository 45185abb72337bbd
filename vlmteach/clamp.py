"""A clamp whose gradient passes straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _StraightThroughClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


def straight_through_clamp(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The value of `x.clamp(low, high)`, bit for bit, with the gradient of the identity.

    Symbolic frames are mostly pure white or black, and a plain clamp gives such pixels no gradient.
    The usual `x + (x.clamp() - x).detach()` can miss the clamped value by a rounding, so this is a
    function of its own.

    Args:
        x: any shape.
    """
    result: Tensor = _StraightThroughClamp.apply(x, low, high)  # type: ignore[assignment]
    return result
