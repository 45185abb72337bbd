"""Algorithm 1's early stop: the loss is low enough, before the update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit


class StopAtLoss(pl.Callback):
    """Ends the micro-fit when L <= tau. The test comes before the update, which is then not made.

    Args:
        threshold: tau, on the loss of Eq. 5. The paper's 0.22 is about 0.8 in confidence.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def decide(self, loss: float) -> bool:
        """Whether a fit with this loss is done. A NaN is not."""
        return loss <= self.threshold

    def on_before_backward(self, trainer: pl.Trainer, pl_module: MicroFit, loss: Any) -> None:
        """Ends the fit at a loss of at most tau."""
        assert pl_module.reading is not None
        if self.decide(pl_module.reading.loss):
            pl_module.stop("threshold")
