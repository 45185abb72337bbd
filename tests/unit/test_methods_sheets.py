"""Clips as stills."""

import numpy as np
import pytest
import torch

from vlmteach.methods.sheets import GAP, contact_sheet, first_and_last, image_of, tile


def clip(frames, height=6, width=8, offset=0):
    """Frame i is of the grey level 10 i + offset."""
    levels = 10 * torch.arange(frames, dtype=torch.uint8) + offset
    return levels.view(-1, 1, 1, 1).expand(frames, height, width, 3).contiguous()


def levels(image, rows, columns, height=6, width=8):
    pixels = np.array(image)
    assert pixels.shape == (
        rows * (height + GAP) - GAP,
        columns * (width + GAP) - GAP,
        3,
    )
    return [
        [int(pixels[y * (height + GAP), x * (width + GAP), 0]) for x in range(columns)]
        for y in range(rows)
    ]


@pytest.mark.parametrize(
    ("frames", "shown"), [(9, [0, 30, 50, 80]), (4, [0, 10, 20, 30]), (2, [0, 10]), (1, [0])]
)
def test_a_sheet_shows_frames_in_time_from_left_to_right(frames, shown):
    assert levels(contact_sheet(clip(frames)), 1, len(shown)) == [shown]


def test_first_and_last_frames_stand_in_a_row_per_clip():
    image = first_and_last([clip(5), clip(5, offset=7)], 256)
    assert levels(image, 2, 2) == [[0, 40], [7, 47]]


def test_large_frames_are_shrunk_keeping_their_shape_and_small_ones_stay():
    assert first_and_last([clip(2, 64, 128)] * 2, 32).size == (2 * 32 + GAP, 2 * 16 + GAP)
    assert first_and_last([clip(2, 16, 8)] * 2, 32).size == (2 * 8 + GAP, 2 * 16 + GAP)


def test_the_ground_between_frames_is_grey():
    image = tile([[image_of(clip(1)[0])] * 2])
    assert image.getpixel((8, 3)) == (128, 128, 128)
