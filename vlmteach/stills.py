"""Still pictures that a run leaves beside its clips: small, for people to look at."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach.record import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 640
"""Pixels of the longer side of a picture that stands alone."""


def write_still(path: Path, image: Image) -> None:
    """Writes a JPEG with a colour per pixel, atomically; the same image gives the same bytes.

    Args:
        path: the file; its folder must exist.
        image: RGB, at most 65,535 pixels a side.
    """
    data = BytesIO()
    image.save(data, "JPEG", quality=92, subsampling=0)
    write_bytes(path, data.getvalue())


def thumbnail(image: Image, largest: int = LARGEST) -> Image:
    """The image in RGB, made smaller where its longer side has more than `largest` pixels."""
    small = image.convert("RGB")
    small.thumbnail((largest, largest))
    return small
