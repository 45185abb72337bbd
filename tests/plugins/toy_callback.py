"""A callback from outside: ends a fit whose loss has stopped falling."""

import math
from typing import Any

import lightning.pytorch as pl


class Patience(pl.Callback):
    def __init__(self, updates: int = 5) -> None:
        self.updates = updates
        self.lowest, self.since = math.inf, 0

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        self.since += 1
        if loss.item() < self.lowest:
            self.lowest, self.since = loss.item(), 0
        if self.since >= self.updates:
            pl_module.stop("patience")
