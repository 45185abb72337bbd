"""Whether a picture can be one of the miniature's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmteach.mini.world.draw import GROUND
from vlmteach.mini.world.types import SIZE

if TYPE_CHECKING:
    from PIL.Image import Image


def can_be_world(picture: Image) -> bool:
    """Whether a picture has a world's size, and its ground is the commonest colour.

    Args:
        picture: RGB.
    """
    if picture.size != (SIZE, SIZE):
        return False
    counted = picture.getcolors(SIZE * SIZE) or []
    ground = tuple(round(float(part) * 255) for part in GROUND)
    return max(counted)[1] == ground
