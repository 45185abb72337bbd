"""The readings of a fit, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from vlmteach.types import Reading

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit


class Curves(pl.Callback):
    """Collects every reading; the last one, with no update after it, included."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: MicroFit, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds this step's reading."""
        assert pl_module.reading is not None
        self.readings.append(pl_module.reading)


class Progress(pl.Callback):
    """Tells somebody of each reading: a progress bar, the lease of a claim.

    Args:
        tell: called after each step with its reading.
    """

    def __init__(self, tell: Callable[[Reading], None]) -> None:
        self.tell = tell

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: MicroFit, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tells of this step's reading."""
        assert pl_module.reading is not None
        self.tell(pl_module.reading)
