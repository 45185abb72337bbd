"""Contact sheets: a row per video, a column per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.tasks import families, make, perform
from vlmteach.mini.world.types import Execution, Split

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

_SHOWN = {
    "extent": 0.5,
    "drift": 4.0,
    "duplicate": 1.0,
    "fade": 0.5,
    "shrink": 0.4,
    "disturb": 0.8,
    "late": 0.85,
}
"""How strong each flaw is drawn."""


def sheet(videos: Sequence[NDArray[np.uint8]], scale: int) -> Image:
    """Videos [T, H, W, 3] as rows of frames, pixels enlarged `scale` times without smoothing."""
    from PIL import Image

    rows = []
    for video in videos:
        padded = np.pad(video, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128)
        rows.append(np.concatenate(list(padded), axis=1))
    image = np.concatenate(rows, axis=0)
    return Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1))


def draw_sheets(folder: Path, split: Split, n: int, scale: int = 6) -> None:
    """Writes `<family>.png` for every family: n tasks done well, then the first with each flaw.

    Args:
        folder: made where it does not exist.
        split: whose tasks, seeds 0 to n - 1.
        n: tasks, at least 1.
        scale: pixels in the sheet for a pixel of a frame.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for family in families():
        tasks = [make(family.name, split, seed) for seed in range(n)]
        flawed = [
            perform(tasks[0], Execution(**{flaw: _SHOWN[flaw]})) for flaw in sorted(family.flaws)
        ]
        image = sheet([task.truth for task in tasks] + flawed, scale)
        image.save(folder / f"{family.name}.png")
