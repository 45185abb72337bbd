"""RULER's instances with what the judge may see of them, out of a packed tar."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlmteach.instances import InstanceError, RawSample, decode, read_held_out, read_samples
from vlmteach.instances.decode import content_digest, decode_image
from vlmteach.instances.ruler import Checklist, read_checklist

if TYPE_CHECKING:
    from PIL.Image import Image

_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.+=-]{0,98}[A-Za-z0-9_+=-])?")


@dataclass(frozen=True, slots=True)
class Item:
    """One instance, to be judged."""

    key: str
    checklist: Checklist
    content: str
    """sha256 of what the reasoner was given, as in `done.json`."""
    digest: str
    """sha256 of all that the judge sees beside the video."""
    raw: RawSample
    final: bytes | None
    """The expected result, encoded."""

    @property
    def name(self) -> str:
        """`<task_name>/<index>`: where its video lies below the model's folder, without .mp4."""
        return f"{self.checklist.task}/{self.checklist.index}"

    def without_images(self) -> Item:
        """For those who only count: a whole set with its images would not fit into memory."""
        return replace(self, raw=RawSample(self.key, self.raw.source), final=None)

    def prompt(self) -> str:
        """The task, as the reasoner was told."""
        return decode(self.raw).prompt

    def first_frame(self) -> Image | None:
        """RGB; None for text-to-video."""
        return decode(self.raw).first_frame

    def expected_result(self) -> Image | None:
        """The picture of the solution, held out; None where there is none."""
        if self.final is None:
            return None
        held = RawSample(self.key, self.raw.source, {"final.png": self.final})
        return decode_image(held, "final.png")


def read_items(sources: Sequence[str]) -> Iterator[Item]:
    """Streams the items of tars, in order.

    Raises:
        InstanceError: a sample that cannot be used or judged. A benchmark's set is whole or it is
            not the benchmark.
    """
    held_out = {}
    names: dict[str, str] = {}
    solutions = read_held_out(list(sources))
    for raw in read_samples(list(sources)):
        if raw.problem is not None:
            raise raw.problem
        # Both streams follow the tar, so at most the samples without a solution lie between.
        while raw.key not in held_out and (held := next(solutions, None)) is not None:
            held_out[held.key] = held
        held = held_out.pop(raw.key, None)
        if held is None or held.meta is None:
            raise InstanceError(
                key=raw.key,
                source=raw.source,
                field="meta.json",
                got="none",
                expected="RULER's row",
                remedy="pack RULER's data.jsonl with `python -m vlmteach.instances pack`",
            )
        checklist = read_checklist(held.meta, raw.key, raw.source)
        item = Item(
            raw.key,
            checklist,
            content_digest(raw),
            _digest(raw, checklist, held.final_png),
            raw,
            held.final_png,
        )
        if names.setdefault(item.name.lower(), raw.key) != raw.key:
            raise InstanceError(
                key=raw.key,
                source=raw.source,
                field="task_name, index",
                got=f"{item.name!r}, as in sample {names[item.name.lower()]!r}",
                expected="every pair once",
                remedy="leave one of the two out",
            )
        yield item


def _digest(raw: RawSample, checklist: Checklist, final: bytes | None) -> str:
    told = json.dumps([checklist.category, checklist.questions, checklist.explanation]).encode()
    digest = hashlib.sha256()
    for part in (content_digest(raw).encode(), told, final or b""):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def check_model(name: str) -> str:
    """A model's name, fit to be a folder's. Raises ValueError."""
    if not _MODEL.fullmatch(name) or name.endswith(".json"):
        raise ValueError(
            f"model: got {name!r}, expected letters, digits and _.+=- (at most 100) and no "
            ".json at the end: it names a folder"
        )
    return name
