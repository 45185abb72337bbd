"""The words of a WebDataset sample: member names, size limits, the raw sample, the refusal."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from vlmteach.text import printable

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
        where = f"{source}: sample {key}" if source else f"sample {key}"
        # Names are a stranger's, and may steer a terminal.
        super().__init__(printable(f"{where}: {field}: got {got}, expected {expected}; {remedy}"))
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


_NOTE = re.compile(r"__[^/]*__(/|$)")
_LONGEST_FIRST = sorted(LIMITS, key=len, reverse=True)
IMAGES = frozenset(
    (
        *("png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "tif", "tiff", "bmp", "dib", "heic"),
        *("heif", "avif", "jxl", "jp2", "ppm", "pgm", "pnm", "tga", "ico", "svg", "qoi", "exr"),
    )
)
"""Endings of images, most of which are not read."""


def split_name(name: str) -> tuple[str, str] | None:
    """(key, suffix) of a sample's member; None for any other name.

    The suffix is one of `LIMITS`, in any case; the key is what stands before it and may hold dots,
    though WebDataset's own readers would take the first for the suffix's.
    """
    folder, slash, base = clean_name(name).rpartition("/")
    lower = base.lower()
    suffix = next((s for s in _LONGEST_FIRST if lower.endswith(f".{s}")), None)
    if suffix is None or why_no_member(name):
        return None
    return folder + slash + base[: -len(suffix) - 1], suffix


def clean_name(name: str) -> str:
    """A name within a tar without the "./" that some packers put in front."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def why_no_member(name: str) -> str:
    """Why a name can be no sample's member, whatever it ends in; empty where it can.

    `__name__` at the top is one of WebDataset's own notes. Hidden files are the system's:
    `._a.first.png` lies beside `a.first.png` wherever a Mac has been.
    """
    name = clean_name(name)
    if _NOTE.match(name):
        return "notes"
    return "hidden" if name.rpartition("/")[2].startswith(".") else ""


_STEERING = {"Cc", "Cs", "Zl", "Zp", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Kinds of characters, by category and by direction."""


def is_image(name: str) -> bool:
    """Whether a name has an image's ending."""
    return name.rpartition(".")[2].lower() in IMAGES


def steers(text: str) -> bool:
    """Whether a text could steer whatever shows it: no UTF-8, more than a line, turned around."""
    kinds = {
        find(sign) for sign in text for find in (unicodedata.category, unicodedata.bidirectional)
    }
    return not kinds.isdisjoint(_STEERING)


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
