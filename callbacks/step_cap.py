"""Algorithm 1's cap N on the number of updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit


class StepCap(pl.Callback):
    """Ends the micro-fit after N updates, once the weights they led to have been read.

    That last reading costs one forward pass more than Algorithm 1, and buys the loss of the
    weights that are kept.

    Args:
        steps: N.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def decide(self, updates: int) -> bool:
        """Whether a fit with this many updates behind it is done."""
        return updates >= self.steps

    def on_before_backward(self, trainer: pl.Trainer, pl_module: MicroFit, loss: Any) -> None:
        """Ends the fit after N updates, with the reading that follows the last."""
        if self.decide(pl_module.updates):
            pl_module.stop("step_cap")
