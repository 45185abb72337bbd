"""Tasks as WebDataset samples."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach.mini.world.scene import Task
from vlmteach.mini.world.tasks import families, make
from vlmteach.mini.world.types import FPS, FRAMES, SIZE, SPLITS, Split
from vlmteach.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlmteach.instances.write import NewSample


def sample_tasks(split: Split, n: int, seed: int) -> Iterator[Task]:
    """n tasks, the families in turn, each with a seed of its own derived from `seed`.

    Raises:
        ValueError: no such split, or n below 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    if n < 1:
        raise ValueError(f"n: got {n}, expected at least 1")
    names = [family.name for family in families()]
    return (
        make(names[i % len(names)], split, derive_seed(seed, f"{split}/{i}", "sample") >> 16)
        for i in range(n)
    )


def export(split: Split, n: int, seed: int, *, queries: bool = False) -> Iterator[NewSample]:
    """Samples for `vlmteach.instances.write.write_tar`, families in turn.

    Each has its prompt, first frame and fields (frames, fps, height, width, task, category, split),
    and held out from generation and teacher: final frame, true video (H.264, so a little blurred)
    and `meta.json`, from which `task_of` rebuilds the task with its rules.

    Args:
        split: whose compositions.
        n: how many.
        seed: of the choice of tasks.
        queries: whether the samples bring their queries; otherwise the teacher writes them.

    Raises:
        ValueError: as in `sample_tasks`, at once.
    """
    return (_sample(task, queries) for task in sample_tasks(split, n, seed))


def _sample(task: Task, queries: bool) -> NewSample:
    from vlmteach.instances.write import NewSample

    fields: dict = {"frames": FRAMES, "fps": FPS, "height": SIZE, "width": SIZE}
    if queries:
        goal, *process = (query.text for query in task.queries)
        fields["queries"] = {"goal": goal, "process": process}
    meta = {"family": task.family, "split": task.split, "seed": task.seed}
    return NewSample(
        key=task.key,
        source="vlmteach.mini.world",
        members={
            "prompt.txt": task.prompt.encode(),
            "first.png": _png(task.first_frame),
            "final.png": _png(task.truth[-1]),
            "gt.mp4": _mp4(task.truth),
            "meta.json": json.dumps(meta, sort_keys=True).encode(),
        },
        task=task.family,
        category=task.category,
        split=task.split,
        fields=fields,
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _mp4(video: NDArray[np.uint8]) -> bytes:
    from vlmteach.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, video, FPS)
        return path.read_bytes()
