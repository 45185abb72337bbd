"""The frames of a video that a judge sees, and a video's frames per second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

PER_SECOND = 2
LONGEST_SIDE = 512
"""Pixels."""


def step(fps: float) -> int:
    """Every how many frames the judge sees one: fps / 2 rounded down, as RULER counts it.

    Below 4 frames per second it sees every frame.
    """
    return max(1, int(fps / PER_SECOND))


@contextmanager
def _opened(video: bytes, name: str) -> Iterator[tuple[Any, Any, float]]:
    """Container, video stream and frames per second; only the mp4 family, only these bytes."""
    from av import open as open_container
    from av.error import FFmpegError

    try:
        with open_container(BytesIO(video), "r", format="mp4") as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise ValueError(f"{name}: got no frame rate, expected one")
            yield container, stream, float(rate)
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"{name}: got {error}, expected an mp4 video") from error


def judged_frames(video: bytes, name: str) -> list[Image]:
    """About two frames a second, RGB, scaled down to `LONGEST_SIDE` where they are larger.

    Raises:
        ValueError: not an mp4 video, or one without frames.
    """
    from PIL import Image

    images = []
    with _opened(video, name) as (container, stream, fps):
        every = step(fps)
        for number, frame in enumerate(container.decode(stream)):
            if number % every == 0:
                image = frame.to_image()
                scale = LONGEST_SIDE / max(image.size)
                if scale < 1:
                    width, height = (max(1, int(side * scale)) for side in image.size)
                    image = image.resize((width, height), Image.Resampling.BOX)
                images.append(image)
    if not images:
        raise ValueError(f"{name}: got no frames, expected at least one")
    return images


def facts(video: bytes, name: str) -> tuple[int, float]:
    """Number of frames, and frames per second, of an mp4's bytes. Raises ValueError."""
    with _opened(video, name) as (container, stream, fps):
        frames = sum(packet.size > 0 for packet in container.demux(stream))
    if not frames:
        raise ValueError(f"{name}: got no frames, expected at least one")
    return frames, fps


def retagged(video: bytes, fps: float, name: str) -> bytes:
    """The same encoded frames, shown at another rate: nothing is decoded or encoded.

    Raises:
        ValueError: not an mp4 video, or frames that do not follow each other evenly.
    """
    from av import open as open_container

    out = BytesIO()
    rate = Fraction(fps).limit_denominator(1001)
    with _opened(video, name) as (container, stream, _):
        packets = [packet for packet in container.demux(stream) if packet.size]
        duration = packets[0].duration if packets else 0
        if not duration or any(p.pts % duration or p.dts % duration for p in packets):
            raise ValueError(f"{name}: got frames of uneven length, expected a constant rate")
        with open_container(out, "w", format="mp4", options={"fflags": "+bitexact"}) as target:
            copy = target.add_stream_from_template(stream)
            copy.time_base = 1 / rate
            for packet in packets:
                packet.time_base = 1 / rate
                packet.pts, packet.dts = packet.pts // duration, packet.dts // duration
                packet.duration = 1
                packet.stream = copy
                target.mux(packet)
    return out.getvalue()
