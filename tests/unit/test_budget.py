"""How frames share a budget of tokens, in numbers alone."""

import pytest

from vlmteach.teachers.budget import LEAST_TOKENS, within


def fitted(budget, frames, *, side, together=2, block=32, full=None):
    """Square frames of `side` pixels, cut down to whole blocks, each a token of its group."""
    full = side * side if full is None else full

    def tokens(count, pixels):
        blocks = int(min(side, pixels**0.5)) // block
        return -(-count // together) * max(blocks, 1) ** 2

    found = within(
        budget,
        frames,
        together=together,
        token_pixels=block * block,
        frame_pixels=full,
        tokens=tokens,
    )
    return found, tokens(*found)


@pytest.mark.parametrize("side", [32, 100, 448, 1024])
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5, 24, 48])
def test_no_more_than_the_budget_and_all_of_it_where_that_is_enough(side, together, frames):
    options = {"side": side, "together": together}
    (count, pixels), most = fitted(10**9, frames, **options)
    assert (count, pixels) == (frames, side * side)
    assert fitted(most, frames, **options)[0] == (frames, side * side)
    for budget in {1, 2, 7, 50, 127, 128, 129, 300, most // 2, most - 1} - {0}:
        (count, _), spent = fitted(budget, frames, **options)
        assert spent <= budget
        assert 1 <= count <= frames
        (again, _), spent = fitted(budget, count, **options)  # asked about its own answer
        assert (again, spent <= budget) == (count, True)


def test_frames_get_smaller_before_they_get_fewer():
    size = {"side": 1024}  # 1024 tokens a pair of frames
    room = 11 * 11  # whole blocks of a square with room for LEAST_TOKENS
    assert room <= LEAST_TOKENS < 12 * 12
    for count, budget in ((24, 12 * room), (22, 12 * room - 1), (4, 2 * room), (2, 2 * room - 1)):
        (found, pixels), _ = fitted(budget, 24, **size)
        assert found == count
        assert pixels >= LEAST_TOKENS * 32 * 32
    (found, pixels), spent = fitted(room - 1, 24, **size)  # the last pair gives way itself
    assert (found, pixels, spent) == (2, (room - 1) * 32 * 32, 10 * 10)


def test_frames_below_the_floor_keep_their_size():
    (count, pixels), spent = fitted(60, 24, side=128)  # 16 tokens a pair
    assert (count, spent) == (6, 48)
    assert pixels >= 128 * 128


def test_a_budget_that_no_frame_fits_is_refused():
    with pytest.raises(ValueError, match=r"teacher\.video_tokens: got 255, expected at least 256"):
        within(
            255,
            8,
            together=1,
            token_pixels=784,
            frame_pixels=448 * 448,
            tokens=lambda count, _: 256 * count,  # as InternVL's tiles
        )
