"""Ends a fit that somebody interrupts, with what it has so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from vlmteach.stops import Interruption

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit


class StopWhenAsked(pl.Callback):
    """Ends the micro-fit before the next update once a person has asked.

    Args:
        interruption: begins with the fit; before, there is nothing worth keeping.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_fit_start(self, trainer: pl.Trainer, pl_module: MicroFit) -> None:
        """From here on an interruption ends in order."""
        self.interruption.begin()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: MicroFit, loss: Any) -> None:
        """Ends the fit where it was asked to end."""
        if self.interruption.is_asked:
            pl_module.stop("interrupted")
