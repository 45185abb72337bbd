"""Keeps what was watched before each update, as one small picture to scrub through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlmteach.frames import uniform_frames
from vlmteach.record import write_json
from vlmteach.rows import PREDICTION_INDEX, PREDICTIONS
from vlmteach.stills import write_still
from vlmteach.video import to_uint8

if TYPE_CHECKING:
    from vlmteach.micro_fit import MicroFit

COLUMNS = 6
"""Watched frames that are kept of a prediction, spread evenly; all where there are fewer."""
ROWS = 64
"""Predictions kept at most: of a longer fit every second one, every fourth, ..., and the last."""
SIDE = 128
"""Pixels of the longer side of a kept frame; smaller ones keep their size."""


@dataclass(frozen=True, slots=True)
class PredictionIndex:
    """What `predictions.jpg` shows (`predictions.json`): a row a reading, a column a frame."""

    steps: tuple[int, ...]
    """Of each row: updates made before."""
    frames: tuple[int, ...]
    """Of each column: the index of the frame in the clip."""
    height: int
    """Of one frame in the picture, pixels."""
    width: int


class Predictions(pl.Callback):
    """Leaves `predictions.jpg` and `predictions.json`: the frames that were decoded for each
    reading, made small.

    They stay on the device until the fit ends, so that no update waits for one.

    Args:
        folder: the instance's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[int, Tensor]] = []
        self.every = 1

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: MicroFit, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps this reading's frames."""
        reading, pixels = pl_module.reading, pl_module.watched
        if reading is None or pixels is None:
            return
        self.frames = pl_module.problem.frames
        if self.rows and self.rows[-1][0] % self.every:
            self.rows.pop()  # it was kept as the last one
        self.rows.append((reading.step, _small(pixels)))
        if len(self.rows) > ROWS:
            self.every *= 2
            *older, last = self.rows
            self.rows = [*(row for row in older if row[0] % self.every == 0), last]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: MicroFit) -> None:
        """Writes the picture."""
        from PIL import Image

        if not self.rows:
            return
        steps, rows = zip(*self.rows, strict=True)
        self.rows = []
        stacked = torch.stack(rows)  # [rows, columns, 3, h, w]
        height, width = stacked.shape[-2:]
        # [rows, columns, 3, h, w] -> [rows * h, columns * w, 3]
        whole = stacked.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        write_still(self.folder / PREDICTIONS, Image.fromarray(whole.cpu().numpy()))
        columns = tuple(self.frames[i] for i in uniform_frames(len(self.frames), COLUMNS))
        write_json(self.folder / PREDICTION_INDEX, PredictionIndex(steps, columns, height, width))


def _small(pixels: Tensor) -> Tensor:
    """Frames [K, 3, H, W] in [0, 1] to uint8 [columns, 3, h, w]."""
    chosen = pixels.detach()[uniform_frames(len(pixels), COLUMNS)].float()
    scale = SIDE / max(chosen.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in chosen.shape[-2:]]
        chosen = interpolate(chosen, size, mode="area")
    return to_uint8(chosen).permute(0, 3, 1, 2)  # [T, H, W, 3] -> [T, 3, H, W]
