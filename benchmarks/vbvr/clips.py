"""A clip as the benchmark takes it: the picture without framing's border, H.264, yuv420p.

The EvalKit brings every video to the size of the ground truth. Where the shapes agree to 5 % it
resizes; otherwise it looks for a white, grey or black border to cut, and stretches what is left. In
symbolic pictures that cuts into the picture's own ground: eight ground truths made at 480 x 832
scored 0.40 inside their border, 0.59 stretched, and 0.94 cut back to the picture (task-specific,
EvalKit 275472f). So a clip that was framed inside a border is cut back to the picture here, by the
same arithmetic that framed it, and nothing is ever stretched.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.video import CRF, FULL_CHROMA

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

RECIPE = {
    "codec": f"H.264, yuv420p, BT.601 limited range, CRF {CRF}",
    "size": f"as made; enlarged by a whole factor where a side is below {FULL_CHROMA} pixels",
    "border": "cut where the first frame was framed inside one; never stretched",
    "fps": "as made",
    "frames": "as made",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """What an mp4 says of itself."""

    frames: int
    height: int
    width: int
    fps: float
    codec: str
    pixels: str


def probe(path: Path) -> Probe:
    """Reads a video's header.

    Raises:
        ValueError: not an mp4 video.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), "r", format="mp4") as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            rate = float(stream.average_rate or 0)
            return Probe(
                stream.frames,
                stream.height,
                stream.width,
                rate,
                context.name,
                context.pix_fmt or "",
            )
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: got {error}, expected an mp4 video") from error


def write_clip(source: Path, first_frame: Image, out: Path) -> dict[str, Any]:
    """Writes a run's clip as the benchmark takes it; the same file where that is what it is.

    Args:
        source: the clip.
        first_frame: the instance's, before it was framed.
        out: the file; its folder must exist.

    Returns:
        What the manifest says of the video.
    """
    from vlmteach.video import read_video

    seen, box = _framing(source, first_frame)
    plain = box is None and _enlargement(seen.height, seen.width) == 1
    if plain and (seen.codec, seen.pixels) == ("h264", "yuv420p"):
        write_bytes(out, source.read_bytes())
    else:
        frames, fps = read_video(source)
        _write(out, frames, box, fps)
    return _entry(out, box)


def write_row(like: Path, first_frame: Image, final_frame: Image, out: Path) -> dict[str, Any]:
    """Writes a clip of `first_frame` and then, at once and to the end, `final_frame`.

    It has the size, length and frame rate of the clip `like` and goes through what that goes
    through: framed as a reasoner is given its first frame, cut, encoded.

    Returns:
        What the manifest says of the video.
    """
    import numpy as np
    import torch

    from vlmteach.instances import fit_first_frame
    from vlmteach.types import ClipSpec

    seen, box = _framing(like, first_frame)
    spec = ClipSpec(seen.frames, seen.height, seen.width, seen.fps)
    first, final = (
        torch.from_numpy(np.array(fit_first_frame(image, spec)))  # [H, W, 3]
        for image in (first_frame, final_frame)
    )
    frames = torch.stack([first, *[final] * (seen.frames - 1)])
    _write(out, frames, box, seen.fps)
    return _entry(out, box)


def _framing(path: Path, first_frame: Image) -> tuple[Probe, tuple[int, int, int, int] | None]:
    """A clip's header, and the picture within its border; None where it has no border."""
    from vlmteach.instances.framing import picture_box
    from vlmteach.types import ClipSpec

    seen = probe(path)
    spec = ClipSpec(seen.frames, seen.height, seen.width, seen.fps)
    box = picture_box(first_frame.size, spec)
    return seen, None if box == (0, 0, seen.width, seen.height) else box


def _enlargement(height: int, width: int) -> int:
    """Whole factor that brings the shorter side to where `write_video` halves the chroma.

    Doubled pixels lose nothing to halved chroma.
    """
    return -(-FULL_CHROMA // min(height, width)) if min(height, width) < FULL_CHROMA else 1


def _write(
    out: Path, frames: torch.Tensor, box: tuple[int, int, int, int] | None, fps: float
) -> None:
    """Cuts, enlarges and encodes frames, uint8 [T, H, W, 3]."""
    from vlmteach.video import write_video

    if box is not None:
        left, top, right, bottom = box
        frames = frames[:, top:bottom, left:right]
    factor = _enlargement(*frames.shape[1:3])
    frames = frames.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    write_video(out, frames, fps)


def _entry(out: Path, box: tuple[int, int, int, int] | None) -> dict[str, Any]:
    made = probe(out)
    assert (made.codec, made.pixels) == ("h264", "yuv420p"), made
    return {
        "sha256": sha256(out),
        "frames": made.frames,
        "height": made.height,
        "width": made.width,
        "fps": made.fps,
        "cut_to": box,
    }


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file by atomic rename."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    scratch.write_bytes(data)
    os.replace(scratch, path)
