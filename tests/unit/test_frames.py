"""Frames shifted as a whole: exact by whole pixels, linear between, drawn anew in each update."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from vlmteach.frames import draw_shift, shifted, uniform_frames, watched_frames

FRAMES = torch.rand(2, 3, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_no_shift_changes_nothing():
    assert shifted(FRAMES, 0.0, 0.0) is FRAMES
    assert draw_shift(0.0, seed=1, key="one", update=3) == (0.0, 0.0)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-1, 2), (2, -3), (-3, -7)])
def test_whole_pixels_move_and_the_edge_is_repeated(down, right):
    moved = shifted(FRAMES, down / 4, right / 8)
    for y in range(4):
        for x in range(8):
            source = FRAMES[..., min(max(y - down, 0), 3), min(max(x - right, 0), 7)]
            torch.testing.assert_close(moved[..., y, x], source, rtol=0, atol=0)


def test_parts_of_a_pixel_are_linear():
    between = shifted(FRAMES, 0.0, -0.25 / 8)
    torch.testing.assert_close(between, 0.75 * FRAMES + 0.25 * shifted(FRAMES, 0.0, -1 / 8))


def test_the_gradient_is_exact():
    frames = FRAMES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: shifted(x, 0.3, -0.2), [frames])


def test_draws_are_bounded_differ_and_repeat():
    draws = [draw_shift(0.1, seed=1, key="one", update=n) for n in range(50)]
    assert draws == [draw_shift(0.1, seed=1, key="one", update=n) for n in range(50)]
    assert len(set(draws)) == 50
    flat = [value for draw in draws for value in draw]
    assert -0.1 <= min(flat) < -0.05 < 0.05 < max(flat) <= 0.1
    assert draws[0] != draw_shift(0.1, seed=1, key="two", update=0)


def test_uniform_frames_are_distinct_ascending_and_span_the_clip():
    for total in range(1, 100):
        for k in range(2, total + 1):
            chosen = uniform_frames(total, k)
            assert len(chosen) == k
            assert chosen == sorted(set(chosen))
            assert (chosen[0], chosen[-1]) == (0, total - 1)
            gaps = [b - a for a, b in pairwise(chosen)]
            assert max(gaps) - min(gaps) <= 1


def test_a_teacher_says_how_many_are_watched():
    class Teacher:
        def frames_of(self, most, height, width):
            asked.append((most, height, width))
            return min(most, 3)

    asked: list[tuple[int, ...]] = []
    teacher: Any = Teacher()
    assert watched_frames(teacher, 9, 5, 32, 64) == uniform_frames(9, 3) == [0, 4, 8]
    assert watched_frames(teacher, 2, 5, 32, 64) == [0, 1]
    assert asked == [(5, 32, 64), (2, 32, 64)]


def test_uniform_frames_at_the_edges():
    assert uniform_frames(5, 9) == [0, 1, 2, 3, 4]
    assert uniform_frames(9, 1) == [8]
    assert uniform_frames(1, 1) == [0]
    with pytest.raises(ValueError, match="at least 1"):
        uniform_frames(0, 3)
