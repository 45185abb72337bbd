"""Keeps the weights with the lowest loss, taken before the optimiser changes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch

if TYPE_CHECKING:
    from vlmteach.lora import InstanceLora
    from vlmteach.micro_fit import MicroFit
    from vlmteach.rollout import Prediction

FAILURES = ("non_finite_loss", "non_finite_gradient", "zero_gradient")


class BestAdapter(pl.Callback):
    """Puts the best adapter back when the fit ends.

    The loss of a step belongs to the weights before its update, so the snapshot is taken between
    the two.

    Args:
        keep: `best` always puts the best back; `last` leaves the last weights, as Algorithm 1
            does, unless the fit ended in bad numbers.
    """

    def __init__(self, keep: Literal["best", "last"]) -> None:
        self.keep = keep
        self.step: int | None = None
        self.loss: float | None = math.inf
        """Of these weights; None where the last are kept and were never read."""
        self.prediction: Prediction | None = None
        """What the reasoner predicted with the best weights."""

    def prediction_of(self, lora: InstanceLora) -> Prediction | None:
        """The prediction of an adapter as it stands, where its weights are the best, bitwise."""
        return self.prediction if torch.equal(lora.flat, self.weights) else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: MicroFit) -> None:
        """Takes the fresh adapter, for a fit without a finite reading."""
        self.weights = pl_module.models.lora.snapshot()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: MicroFit, loss: Any) -> None:
        """Takes the weights that this loss belongs to, where it is the lowest yet."""
        reading = pl_module.reading
        assert reading is not None
        assert self.loss is not None
        if reading.loss < self.loss:
            self.loss, self.step = reading.loss, reading.step
            self.weights.copy_(pl_module.models.lora.flat)
            self.prediction = pl_module.prediction

    def on_fit_end(self, trainer: pl.Trainer, pl_module: MicroFit) -> None:
        """Puts the best weights back, or leaves the last ones where those are kept."""
        if self.keep == "best" or pl_module.stop_reason in FAILURES:
            pl_module.models.lora.load(self.weights)
        elif (reading := pl_module.reading) is not None:
            self.step = pl_module.updates
            # A callback may have ended the fit after an update, before the reading that follows.
            self.loss = reading.loss if reading.step == self.step else None
