"""The checks and the order of the clip frames a decoder is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from vlmteach.decoders.base import DecoderFacts


def wanted_frames(z0: Tensor, frames: Sequence[int] | None, facts: DecoderFacts) -> list[int]:
    """The clip frames to decode from latents [1, C, t, h, w]: all T = stride (t - 1) + 1 for None.

    Raises:
        ValueError: the latents have another shape than the decoder takes, or the frames are not
            ascending indices in [0, T).
    """
    if z0.ndim != 5 or z0.shape[0] != 1 or z0.shape[1] != facts.latent_channels:
        raise ValueError(
            f"latents: got shape {tuple(z0.shape)}, expected (1, {facts.latent_channels}, t, h, w);"
            " choose the decoder checkpoint that belongs to the reasoner's VAE, and decode one clip"
            " at a time"
        )
    count = facts.temporal_stride * (z0.shape[2] - 1) + 1
    if frames is None:
        return list(range(count))
    wanted = [int(frame) for frame in frames]
    ascending = all(a <= b for a, b in pairwise(wanted))
    if not wanted or not ascending or wanted[0] < 0 or wanted[-1] >= count:
        raise ValueError(
            f"frames: got {wanted}, expected at least one index, ascending, in [0, {count}); "
            f"{z0.shape[2]} latent frames make {count} clip frames"
        )
    return wanted
