"""How large a video's frames, and how many: what a budget of visual tokens leaves of them.

Frames first share the budget evenly and are made smaller, which is the rule of Qwen's own
processors (`cap_pixels_per_frame` in transformers, from qwen-vl-utils). As there, no share gets
smaller than a floor. Those exceed the budget then; here, fewer frames are watched.
"""

from __future__ import annotations

from collections.abc import Callable

LEAST_TOKENS = 128
"""That frames which share their tokens have room for, before fewer are watched:
`VIDEO_MIN_TOKEN_NUM` of qwen-vl-utils, and transformers' default for Qwen-VL's videos."""


def within(
    budget: int,
    frames: int,
    *,
    together: int,
    token_pixels: int,
    frame_pixels: int,
    tokens: Callable[[int, int], int],
) -> tuple[int, int]:
    """Frames and pixels per frame at most, so that a video has no more tokens than the budget.

    What is given where that fits; else as many frames as fit with room for `LEAST_TOKENS` each, or
    for the even share if that is more. One group of frames alone gets whatever there is.

    Args:
        budget: visual tokens of the whole video.
        frames: K at most.
        together: frames that share their tokens: a temporal patch.
        token_pixels: of one frame in one token.
        frame_pixels: H x W at most of a frame.
        tokens: frames and pixels per frame -> tokens of the video.

    Raises:
        ValueError: not even one group of frames fits.
    """
    if tokens(frames, frame_pixels) <= budget:
        return frames, frame_pixels
    one = min(frames, together)
    fewer = range((frames - 1) // together * together, 0, -together)
    for count in (frames, *fewer):
        groups = -(-count // together)
        share = budget * token_pixels // groups  # as pixels of a frame
        least = LEAST_TOKENS * token_pixels if count > one else 0
        pixels = min(frame_pixels, max(share, least))
        if tokens(count, pixels) <= budget:
            return count, pixels
    raise ValueError(
        f"teacher.video_tokens: got {budget}, expected at least {tokens(one, token_pixels)}, those "
        "of the smallest frames of this shape that the teacher can see; raise it"
    )
