"""Guards the update: a loss or gradient that cannot be trusted ends the instance, with a reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from vlmteach.types import StopReason

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit


class GradientHealth(pl.Callback):
    """Ends the micro-fit on a non-finite loss, or a non-finite or all-zero gradient.

    The weights are those before the bad update: once an optimiser has stepped on a NaN, nothing
    is left to save.
    """

    def decide(self, loss: float, gradient_norm: float | None) -> StopReason | None:
        """The reason to stop, if any. `gradient_norm` is None before the backward pass."""
        if not math.isfinite(loss):
            return "non_finite_loss"
        if gradient_norm is None:
            return None
        if not math.isfinite(gradient_norm):
            return "non_finite_gradient"
        return "zero_gradient" if gradient_norm == 0 else None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: MicroFit, loss: Any) -> None:
        """Ends the fit at a loss that is not finite."""
        assert pl_module.reading is not None
        if reason := self.decide(pl_module.reading.loss, None):
            pl_module.stop(reason)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: MicroFit) -> None:
        """Notes the gradient's norm, and ends the fit at one that is not finite or is zero."""
        if trainer.should_stop:  # no backward pass was made
            return
        assert pl_module.reading is not None
        gradients = [p.grad for p in pl_module.adapter.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        pl_module.note_gradient_norm(norm)
        if reason := self.decide(pl_module.reading.loss, norm):
            pl_module.stop(reason)
            pl_module.zero_grad(set_to_none=True)
