"""Frames and images to the square tiles that InternVL reads, in torch alone and differentiable.

A frame of a video is one tile whatever its aspect ratio, as in the official video recipe; an image
may be several. The steps are those of transformers' InternVL processors, which need torchvision;
the tests compare the two where torchvision imports.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.checkpoints.files import CheckpointError
from vlmteach.teachers import pixels, processor_files
from vlmteach.teachers.processor_files import colour, whole

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileSpec:
    """What a checkpoint's preprocessor file says of pixels."""

    size: tuple[int, int]
    """H, W of a tile in pixels: what the vision tower was trained on, 448 x 448."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    most: int = 12
    """Tiles that an image is cut into at most, its thumbnail not counted."""

    @property
    def area(self) -> int:
        """Pixels of a tile."""
        return self.size[0] * self.size[1]


def tile_specs(checkpoint: str | Path, size: tuple[int, int]) -> tuple[TileSpec, TileSpec]:
    """What a checkpoint does with images and with videos.

    Sought where transformers seeks it: nested in processor_config.json, or in a file of its own, or
    for videos in the images' file. Several checkpoints on the hub carry a video file of 384 x 384
    pixels and CLIP's mean: transformers' class default, saved by mistake, which the vision tower
    cannot even take. Such a file is passed over for the images' one, with a warning.

    Args:
        checkpoint: a local folder or a hub id.
        size: H, W of the vision tower's tile, from the model's config.

    Raises:
        ValueError: no preprocessor file for that size, or one that lacks a field.
    """
    image, video = processor_files.preprocessors(checkpoint)
    images = _spec(checkpoint, image)
    if images.size != size:
        raise ValueError(
            f"teacher {checkpoint}: got tiles of {images.size} pixels in the preprocessor file, "
            f"expected the vision tower's {size}; set size in preprocessor_config.json"
        )
    videos = _spec(checkpoint, video)
    if videos.size != size:
        log.warning(
            "teacher %s: its video file says %s pixels, mean %s, which is not what its vision tower"
            " takes; the image file's %s pixels, mean %s are used",
            *(checkpoint, videos.size, videos.mean, images.size, images.mean),
        )
        videos = images
    return images, videos


def frame_tiles(frames: Tensor, spec: TileSpec) -> Tensor:
    """[K, 3, H, W] in [0, 1] -> [K, 3, *spec.size] normalised, one tile per frame.

    float32, or float64 where the frames are; differentiable in `frames`.
    """
    import torch

    frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
    return normalise(pixels.resize(frames, spec.size), spec)


def image_tiles(image: Tensor, spec: TileSpec, most: int) -> Tensor:
    """[1, 3, H, W] in [0, 1] -> [n, 3, *spec.size] normalised: the tiles row by row, a thumbnail.

    Rounded to uint8 as the official path. One tile alone has no thumbnail.

    Args:
        most: tiles at most, the thumbnail not counted.
    """
    import torch

    height, width = spec.size
    rows, columns = canvas((image.shape[2], image.shape[3]), spec.size, most)
    whole = _resize_rounded(image, (rows * height, columns * width))
    # [1, 3, rows H, columns W] -> [rows, columns, 3, H, W]
    cut = whole[0].unflatten(2, (columns, width)).unflatten(1, (rows, height))
    tiles = cut.permute(1, 3, 0, 2, 4).flatten(0, 1)
    if len(tiles) > 1:
        tiles = torch.cat([tiles, _resize_rounded(image, spec.size)])
    return normalise(tiles, spec)


def canvas(source: tuple[int, int], tile: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and columns of tiles for an image: those nearest to its aspect ratio.

    Of grids equally near the largest is taken that is less than twice the image's area.

    >>> canvas((400, 800), (448, 448), 12), canvas((100, 100), (448, 448), 12)
    ((1, 2), (1, 1))

    Args:
        source: H, W of the image.
        tile: H, W of a tile.
        most: tiles at most.
    """
    height, width = source
    sides = range(1, most + 1)
    grids = [(rows, columns) for columns in sides for rows in sides if rows * columns <= most]
    best, nearest = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        off = abs(width / height - columns / rows)
        fills = 2 * height * width > tile[0] * tile[1] * rows * columns
        if off < nearest or (off == nearest and fills):
            best, nearest = (rows, columns), off
    return best


def normalise(frames: Tensor, spec: TileSpec) -> Tensor:
    """(x - mean) / std per channel of [K, 3, H, W]."""
    mean = frames.new_tensor(spec.mean).view(-1, 1, 1)
    std = frames.new_tensor(spec.std).view(-1, 1, 1)
    return (frames - mean) / std


def _resize_rounded(image: Tensor, size: tuple[int, int]) -> Tensor:
    return (pixels.resize(image, size) * 255).round() / 255


def _spec(checkpoint: str | Path, content: dict[str, Any]) -> TileSpec:
    try:
        return TileSpec(
            size=(whole(content["size"]["height"]), whole(content["size"]["width"])),
            mean=colour(content["image_mean"]),
            std=colour(content["image_std"], least=0),
            most=whole(content.get("max_patches") or 12),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"teacher {checkpoint}: got a preprocessor file without {error}, expected size with "
            "height and width, image_mean and image_std; is this an InternVL checkpoint (-hf)?"
        ) from None
