"""Clips encoded beside the work: one at a time, in a thread that ends with the instance."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Self

from vlmteach.video import write_video

if TYPE_CHECKING:
    import torch


class ClipWriter:
    """Encodes clips in the order in which they come, while the caller goes on.

    The encoder works outside Python's lock. At most one clip is held: who brings the next one waits
    for the one before. What goes wrong is raised by the next call. As a context manager it ends
    with every clip written; when its body fails, with the clip at work given up and no part of it
    left. The thread is gone afterwards either way.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._given_up = Event()
        self._at_work: Future[None] | None = None

    def write(self, path: Path, frames: torch.Tensor, fps: float, comment: str = "") -> None:
        """Has a clip encoded; see `write_video`. The frames may change afterwards.

        Raises:
            Exception: whatever the clip before failed with.
        """
        self.wait()
        own = frames.to("cpu", copy=True)
        given_up = self._given_up.is_set
        self._at_work = self._thread.submit(write_video, path, own, fps, given_up, comment)

    def wait(self) -> None:
        """Returns once every clip is a file.

        Raises:
            Exception: whatever the last clip failed with.
        """
        clip, self._at_work = self._at_work, None
        if clip is not None:
            clip.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._given_up.set()
            self._thread.shutdown()
