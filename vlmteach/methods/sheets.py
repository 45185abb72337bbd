"""Clips as still images, for a teacher that is asked to write about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image as images

from vlmteach.frames import uniform_frames

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SHEET_FRAMES = 4
"""Frames of a clip on its sheet, the first and the last included."""
GAP = 4
"""Pixels between two frames."""
_GREY = (128, 128, 128)


def image_of(frame: Tensor) -> Image:
    """A frame, uint8 [H, W, 3], as an image."""
    return images.fromarray(frame.cpu().numpy())


def contact_sheet(frames: Tensor) -> Image:
    """A clip, uint8 [T, H, W, 3], as one row of `SHEET_FRAMES` frames, uniformly spread."""
    return tile([[image_of(frames[i]) for i in uniform_frames(len(frames), SHEET_FRAMES)]])


def first_and_last(clips: Sequence[Tensor], side: int) -> Image:
    """A row per clip, uint8 [T, H, W, 3]: its first and its last frame.

    Args:
        clips: of one size.
        side: each frame is shrunk to at most side x side pixels, its aspect ratio kept; a smaller
            one stays as it is.
    """
    rows = [[image_of(clip[0]), image_of(clip[-1])] for clip in clips]
    for row in rows:
        for frame in row:
            frame.thumbnail((side, side), images.Resampling.LANCZOS)
    return tile(rows)


def tile(rows: Sequence[Sequence[Image]]) -> Image:
    """Rows of images of one size, `GAP` grey pixels between them."""
    width, height = rows[0][0].size
    columns = max(map(len, rows))
    size = (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    canvas = images.new("RGB", size, _GREY)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            canvas.paste(image, (x * (width + GAP), y * (height + GAP)))
    return canvas
