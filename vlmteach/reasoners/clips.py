"""What every reasoner asks of a clip and its first frame, from its declared facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.reasoners.base import ReasonerFacts
    from vlmteach.types import ClipSpec


def latent_shape(facts: ReasonerFacts, clip: ClipSpec) -> tuple[int, int, int, int, int]:
    """(1, C, t, h, w) with T = temporal stride (t - 1) + 1 and H, W = spatial stride (h, w).

    Raises:
        ValueError: for a number of frames or a size that the model cannot make.
    """
    for name, size in (("height", clip.height), ("width", clip.width)):
        if size < 1 or size % facts.size_multiple:
            raise ValueError(
                f"{name}: got {size}, expected a positive multiple of {facts.size_multiple}; "
                "resize the first frame or set the clip's size"
            )
    steps, rest = divmod(clip.frames - 1, facts.temporal_stride)
    if clip.frames < 1 or rest:
        below = max(steps, 0) * facts.temporal_stride + 1
        raise ValueError(
            f"frames: got {clip.frames}, expected {facts.temporal_stride} (t - 1) + 1; "
            f"the nearest are {below} and {below + facts.temporal_stride}"
        )
    stride = facts.spatial_stride
    return 1, facts.latent_channels, steps + 1, clip.height // stride, clip.width // stride


def check_first_frame(facts: ReasonerFacts, first_frame: Image | None, clip: ClipSpec) -> None:
    """Whether the model takes this first frame, or none, for this clip.

    Raises:
        ValueError: for a kind of instance that the checkpoint does not accept, or a first frame of
            another size than the clip's.
    """
    if first_frame is None:
        if not facts.accepts_text_only:
            raise ValueError(
                "first_frame: got none, expected an image: this checkpoint makes video from an "
                "image only; give the instance a first frame, or take a text-to-video checkpoint"
            )
        return
    if not facts.accepts_image:
        raise ValueError(
            "first_frame: got an image, expected none: this checkpoint makes video from text "
            "only; take an image-to-video checkpoint, or leave the image out"
        )
    if first_frame.size != (clip.width, clip.height):
        width, height = first_frame.size
        raise ValueError(
            f"first_frame: got {height} x {width} pixels (height x width), expected the clip's "
            f"{clip.height} x {clip.width}; resize it first"
        )
