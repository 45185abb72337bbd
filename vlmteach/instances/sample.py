"""The words of a WebDataset sample: member names, size limits, the raw sample, the refusal."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FIRST_FRAMES = ("first.png", "first.jpg", "first.jpeg", "first.webp")
GIVEN = frozenset({"prompt.txt", "json", *FIRST_FRAMES})
"""Members that generation and teacher may see."""
HELD_OUT = frozenset({"final.png", "gt.mp4", "meta.json"})
"""Members of the solution; only scoring reads them."""

KIB, MIB = 2**10, 2**20
LIMITS = {
    "prompt.txt": 64 * KIB,
    "json": MIB,
    **dict.fromkeys(FIRST_FRAMES, 64 * MIB),
    "final.png": 64 * MIB,
    "gt.mp4": 1024 * MIB,
    "meta.json": 16 * MIB,
}
"""Bytes a member may have; a larger one is refused before it is read."""
MAX_PIXELS = 64 * MIB
"""H x W a first frame may have, 8192 x 8192; a larger one is refused before it is decoded."""


class InstanceError(ValueError):
    """A sample that cannot be used. Names the file, the key and the field.

    Attributes:
        key: the sample's key, unique among the samples and refusals of one pass.
        source: the file it came from, perhaps with a line.
        field: the member, JSON field or column at fault.
    """

    def __init__(
        self, *, key: str, source: str, field: str, got: str, expected: str, remedy: str
    ) -> None:
        name = key if key.isprintable() else repr(key)  # a stranger's key may steer a terminal
        where = f"{source}: sample {name}" if source else f"sample {name}"
        super().__init__(f"{where}: {field}: got {got}, expected {expected}; {remedy}")
        self.key = key
        self.source = source
        self.field = field


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample as it lies in its file, still encoded, without its held-out members."""

    key: str
    source: str
    members: dict[str, bytes] = field(default_factory=dict)
    """Encoded bytes by suffix, e.g. `"prompt.txt"`; a subset of `GIVEN`."""
    problem: InstanceError | None = None
    """Why the sample cannot be used; `decode` raises it."""


_NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
_NOTE = re.compile(r"__[^/]*__(/|$)")


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a member, or None for a name that is not a member's.

    WebDataset's rule: the suffix starts at the first dot after the last slash, and its case does
    not matter. `__name__` at the top is one of the format's own notes, not a sample.
    """
    name = name.removeprefix("./")
    match = _NAME.fullmatch(name)
    if match is None or _NOTE.match(name):
        return None
    return match[1], match[2].lower()


def shown(value: object, length: int = 60) -> str:
    """A value for an error message: its repr, cut."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


def size_refusal(key: str, source: str, member: str, size: int) -> InstanceError | None:
    """The refusal of a member larger than `LIMITS` allows; None when it fits."""
    if size <= LIMITS[member]:
        return None
    return InstanceError(
        key=key,
        source=source,
        field=member,
        got=f"{size} bytes",
        expected=f"at most {LIMITS[member]}",
        remedy="make the member smaller",
    )
