"""Clips as H.264 files, in and out, through PyAV and its own ffmpeg.

Colours are BT.601 limited range, and tagged so: players follow the tag, and readers that ignore
tags (OpenCV, which the benchmarks score with) assume BT.601.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

CRF = "10"
"""x264's constant rate factor: visually lossless; what is lost is mostly the halved chroma."""
FULL_CHROMA = 128
"""Clips whose shorter side has fewer pixels keep a colour per pixel (4:4:4). Halved chroma, which
every player knows, would wipe out what is one or two pixels wide."""
SLOWEST, FASTEST = 0.01, 1000
"""Frames per second: what a rate with a denominator of at most 1001 can say to a thousandth."""
# Macroblock-tree rate control reads memory it never wrote (seen with AVX-512: other bytes at each
# write), and weighted prediction rounds differently from one instruction set to another.
_EXACT = "no-mbtree=1:weightp=0"
# ffmpeg's numbers: 5 names BT.601 as matrix, as primaries and in swscale; 6 its transfer curve;
# 1 the limited range.
_BT601, _TRANSFER_BT601, _LIMITED = 5, 6, 1


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [T, 3, H, W] in [0, 1] to uint8 [T, H, W, 3].

    Values are clamped, multiplied by 255 and rounded half to even, as diffusers does on the way to
    PIL images.
    """
    import torch

    levels = (pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous()  # [T, 3, H, W] -> [T, H, W, 3]


class GivenUp(Exception):
    """The clip was given up before it was written."""


def write_video(
    path: str | Path,
    frames: torch.Tensor | np.ndarray,
    fps: float,
    given_up: Callable[[], bool] = lambda: False,
    comment: str = "",
) -> None:
    """Writes an mp4 (H.264, `CRF`, yuv420p or for small clips yuv444p) by atomic rename.

    The same frames give the same bytes, with one build of ffmpeg on one kind of processor: one
    encoder thread, no date in the file, and `_EXACT`. yuv420p needs even sizes: an odd height or
    width grows by one, the last row or column repeated.

    Args:
        path: the file; its folder must exist.
        frames: uint8 [T, H, W, 3], RGB, T >= 1.
        fps: frames per second, `SLOWEST` to `FASTEST`.
        given_up: asked before each frame; once it is true, nothing is written.
        comment: kept in the file's metadata, under that name.

    Raises:
        ValueError: frames of another shape or type, or such fps.
        GivenUp: it was given up.
    """
    import av
    import numpy as np

    array = np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames)  # pyright: ignore
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(
            f"video frames: got {array.dtype} {list(array.shape)}, expected uint8 [T, H, W, 3] "
            "with at least one frame; `to_uint8` makes it from pixels"
        )
    if not SLOWEST <= fps <= FASTEST:
        raise ValueError(f"video fps: got {fps}, expected {SLOWEST} to {FASTEST}")
    height, width = array.shape[1:3]
    edges = ((0, height % 2), (0, width % 2), (0, 0))

    path = Path(path)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        options = {"fflags": "+bitexact", "movflags": "+faststart"}
        with av.open(str(scratch), "w", format="mp4", options=options) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream(
                "libx264",
                rate=Fraction(fps).limit_denominator(1001),
                options={
                    "crf": CRF,
                    "preset": "medium",
                    "threads": "1",
                    "x264-params": _EXACT,
                },
            )
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = pixels = "yuv444p" if min(height, width) < FULL_CHROMA else "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = _BT601
            context.color_trc, context.color_range = _TRANSFER_BT601, _LIMITED
            for image in array:
                if given_up():
                    raise GivenUp(f"{path}: given up")
                image = np.pad(image, edges, mode="edge")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pixels, dst_colorspace=_BT601)))
            container.mux(stream.encode())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_video(source: str | Path | bytes) -> tuple[torch.Tensor, float]:
    """Decodes the first video stream of an mp4 file, or of such a file's bytes.

    Only the mp4 family is read, and only from these bytes: other containers (playlists) can name
    further files and addresses, which ffmpeg would open.

    Returns:
        frames uint8 [T, H, W, 3], RGB; frames per second.

    Raises:
        ValueError: not an mp4 video, or one without frames.
        OSError: the file cannot be read.
    """
    import numpy as np
    import torch
    from av import open as open_container
    from av.error import FFmpegError

    name = "video bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        with open_container(BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"{name}: got {error}, expected an mp4 video") from error
    if not frames or not rate:
        raise ValueError(f"{name}: got no frames, expected at least one")
    return torch.from_numpy(np.stack(frames)), float(rate)
