"""Instances and what was held out of them as the official data tree.

For samples that came in another shape: the EvalKit takes its ground truth from such a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from benchmarks.vbvr.clips import write_bytes
from benchmarks.vbvr.layout import TRUTH, Named, assign, compare, listed, refuse_leftovers
from vlmteach.instances import decode, read_held_out, read_samples


def write_tree(sources: Sequence[str], out: Path, split_name: str | None = None) -> int:
    """Writes `<out>/<split>/<task>/<5 digits>/` with the four files of each sample.

    Returns:
        How many samples were written.

    Raises:
        ValueError: an instance that cannot be used or has no place, first frame, final frame or
            ground truth; or a folder that holds other files.
    """
    whole = {h.key for h in read_held_out(sources) if h.final_png and h.ground_truth_mp4}
    named, lacking = [], []
    for raw in read_samples(sources):
        instance = decode(raw)
        named.append(Named.of(instance))
        if instance.first_frame is None or instance.key not in whole:
            lacking.append(instance.key)
    if lacking:
        raise ValueError(
            f"--instances: got {len(lacking)} without first frame, final frame or ground truth, "
            "expected all; pack them from a tree that has them:" + listed(lacking)
        )
    places = assign(named, split_name)
    wanted = [f"{place.folder}/{name}" for place in places.values() for name in TRUTH]
    refuse_leftovers(out, compare(out, wanted)[1])
    for raw in read_samples(sources):
        folder = out / places[raw.key].folder
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "prompt.txt", raw.members["prompt.txt"])
        png = raw.members.get("first.png")
        if png is None:  # a JPEG or WebP
            buffer = BytesIO()
            first = decode(raw).first_frame
            assert first is not None  # refused above
            first.save(buffer, "PNG")
            png = buffer.getvalue()
        write_bytes(folder / "first_frame.png", png)
    for held in read_held_out(sources):
        folder = out / places[held.key].folder
        assert held.final_png is not None  # refused above
        assert held.ground_truth_mp4 is not None
        write_bytes(folder / "final_frame.png", held.final_png)
        write_bytes(folder / "ground_truth.mp4", held.ground_truth_mp4)
    return len(places)
