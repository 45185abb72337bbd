"""What clip an instance gets, and its first frame at that size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vlmteach.instances.sample import InstanceError
from vlmteach.types import ClipSpec, Instance

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.config import ClipConfig

MOST = 4
"""Times the pixels of the run's own clip, frames included, that an instance may ask for: memory and
time were planned for that one."""
STRETCH = 1.05
"""Sizes are multiples, so an aspect ratio cannot be kept exactly: up to this factor an image is
resized without a border."""


def clip_spec(
    instance: Instance, defaults: ClipConfig, *, size_multiple: int, temporal_stride: int
) -> ClipSpec:
    """The clip to make for an instance; what the instance says wins over the defaults.

    Without an explicit size, the clip has about `max_pixels` pixels and never more: a first frame
    of another size is scaled up or down to it, since a video model works best near the size it was
    trained at. The first frame's aspect ratio is kept; both sides are rounded down to the multiple
    (as Wan's image-to-video examples do). Text-to-video is landscape 16:9, its height rounded to
    the nearest multiple: 704 * 1280 gives 704 x 1280, 480 * 832 gives 480 x 832.

    Args:
        instance: its wishes and its first frame.
        defaults: for an instance that does not say.
        size_multiple: height and width are multiples of this.
        temporal_stride: frames are `temporal_stride * (t - 1) + 1` for a whole t.

    Raises:
        InstanceError: frames or a size that the reasoner cannot make, or more of both than `MOST`
            times the defaults.
    """

    def refusal(field: str, got: str, expected: str, remedy: str) -> InstanceError:
        return InstanceError(
            key=instance.key, source="", field=field, got=got, expected=expected, remedy=remedy
        )

    height, width, max_pixels = defaults.height, defaults.width, defaults.max_pixels
    most = MOST * defaults.frames * (height * width if height and width else max_pixels)
    frames = defaults.frames if instance.frames is None else instance.frames
    steps = max(frames - 1, 0) // temporal_stride
    if frames < 1 or (frames - 1) % temporal_stride:
        lower, upper = steps * temporal_stride + 1, (steps + 1) * temporal_stride + 1
        raise refusal(
            "frames",
            str(frames),
            f"{temporal_stride} (t - 1) + 1 for a whole t",
            f"take {lower} or {upper}",
        )
    assert (instance.height is None) == (instance.width is None)
    if instance.height is not None:
        height, width = instance.height, instance.width
    if height is None or width is None:
        height, width = _size(instance.first_frame, max_pixels, size_multiple)
        if min(height, width) < size_multiple:
            raise refusal(
                "max_pixels",
                str(max_pixels),
                f"room for {size_multiple} x {size_multiple}",
                "raise clip.max_pixels",
            )
    if height % size_multiple or width % size_multiple:
        near = " x ".join(
            str(max(1, round(s / size_multiple)) * size_multiple) for s in (height, width)
        )
        raise refusal(
            "height, width",
            f"{height} x {width}",
            f"multiples of {size_multiple}",
            f"take {near}",
        )
    if frames * height * width > most:  # only an instance's own wish can be
        raise refusal(
            "frames, height, width",
            f"{frames} x {height} x {width}",
            f"at most {most} pixels in all, {MOST} times the run's clip",
            "ask for less, or raise clip.frames or clip.max_pixels",
        )
    return ClipSpec(frames, height, width, instance.fps or defaults.fps)


def _size(first_frame: Image | None, max_pixels: int, multiple: int) -> tuple[int, int]:
    if first_frame is None:
        height = round(math.sqrt(max_pixels * 9 / 16) / multiple) * multiple
        return height, max_pixels // max(height, 1) // multiple * multiple
    aspect = first_frame.height / first_frame.width
    # The small addend keeps a root that should be whole from falling just below it.
    height = int(math.sqrt(max_pixels * aspect) + 1e-6) // multiple * multiple
    width = int(math.sqrt(max_pixels / aspect) + 1e-6) // multiple * multiple
    # A strip too thin for one multiple gets one, and the other side what is left.
    if height == 0:
        return multiple, max_pixels // multiple // multiple * multiple
    if width == 0:
        return max_pixels // multiple // multiple * multiple, multiple
    return height, width


def fit_first_frame(image: Image, clip: ClipSpec) -> Image:
    """The first frame at exactly the clip's size: Lanczos, as diffusers' VideoProcessor resizes.

    Where the aspect ratios agree to a factor of `STRETCH` it is resized as a whole. Otherwise it
    is never stretched: scaled to fit, centred, and padded with the commonest colour along its own
    border (the smallest RGB value of equals), so that a symbolic frame's ground simply goes on.

    Args:
        image: RGB.
        clip: the size to reach.
    """
    from PIL import Image as images

    image = image.convert("RGB")
    left, top, right, bottom = picture_box(image.size, clip)
    inner = image.resize((right - left, bottom - top), images.Resampling.LANCZOS)
    if inner.size == (clip.width, clip.height):
        return inner
    canvas = images.new("RGB", (clip.width, clip.height), _border_colour(image))
    canvas.paste(inner, (left, top))
    return canvas


def picture_box(size: tuple[int, int], clip: ClipSpec) -> tuple[int, int, int, int]:
    """Where `fit_first_frame` puts the picture: left, top, right, bottom in the clip's pixels.

    Args:
        size: width and height of the first frame before it was fitted.
        clip: the size it was fitted to.
    """
    stretch = (clip.width / clip.height) / (size[0] / size[1])
    if 1 / STRETCH <= stretch <= STRETCH:
        return 0, 0, clip.width, clip.height
    scale = min(clip.width / size[0], clip.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    left, top = (clip.width - width) // 2, (clip.height - height) // 2
    return left, top, left + width, top + height


def _border_colour(image: Image) -> tuple[int, ...]:
    width, height = image.size
    counts: dict[tuple[int, ...], int] = {}
    for box in (
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    ):
        edge = image.crop(box)
        for count, colour in edge.getcolors(edge.width * edge.height) or ():
            assert isinstance(colour, tuple)  # RGB
            counts[colour] = counts.get(colour, 0) + count
    return min(counts, key=lambda colour: (-counts[colour], colour))
