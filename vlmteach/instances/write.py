"""Samples into a tar: checked as a reader will check them, and the same bytes every time."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from vlmteach.instances.decode import decode, decode_image
from vlmteach.instances.read import parse_meta
from vlmteach.instances.sample import GIVEN, InstanceError, RawSample, shown, size_refusal, steers
from vlmteach.instances.tally import Tally


@dataclass(slots=True)
class NewSample:
    """A sample on its way into a tar."""

    key: str
    source: str
    """Where it came from, for messages."""
    members: dict[str, bytes]
    """Encoded bytes by suffix. The first frame comes as `"first.png"`, whatever its format."""
    task: str | None = None
    category: str | None = None
    split: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of `<key>.json`."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of packing a source."""

    keys: tuple[str, ...]
    """The samples written, in order."""
    refused: tuple[InstanceError, ...]
    tally: Tally
    """Of the members: written, of refused samples, and ignored by the importer."""


def write_tar(
    samples: Iterable[NewSample | InstanceError], out: Path, tally: Tally | None = None
) -> Packed:
    """Writes the good samples by atomic rename and reports the others.

    Every sample is decoded first, so what is written can be read. Times, owners and modes are
    fixed and JSON is sorted: the same samples give the same bytes. Without one good sample no tar
    is written.

    Args:
        tally: an importer's, which counts what it ignores.
    """
    from webdataset.writer import TarWriter

    tally = tally or Tally()
    keys: dict[str, str] = {}  # key -> source
    refused: list[InstanceError] = []
    scratch = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with (
            scratch.open("wb") as file,
            TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False) as tar,
        ):
            for sample in samples:
                try:
                    if isinstance(sample, InstanceError):
                        raise sample
                    members = _checked(sample, keys)
                except InstanceError as error:
                    refused.append(error)
                    tally.refused += len(sample.members) if isinstance(sample, NewSample) else 1
                    continue
                tally.used += len(sample.members)
                keys[sample.key] = sample.source
                tar.write({"__key__": sample.key, **members})
        if keys:
            os.replace(scratch, out)
    finally:
        scratch.unlink(missing_ok=True)
    return Packed(tuple(keys), tuple(refused), tally)


def _checked(sample: NewSample, keys: dict[str, str]) -> dict[str, bytes]:
    """The members to write; the sample's key made fit for a tar. Raises InstanceError."""

    def refusal(got: str, expected: str, remedy: str) -> InstanceError:
        return InstanceError(
            key=sample.key,
            source=sample.source,
            field="key",
            got=got,
            expected=expected,
            remedy=remedy,
        )

    # A member's suffix starts at the first dot of its name, so the key's own may not hold one.
    folder, slash, name = sample.key.rpartition("/")
    sample.key = folder + slash + name.replace(".", "_")
    parts = sample.key.split("/")
    if "" in parts or PurePosixPath(sample.key).as_posix() != sample.key or ".." in parts:
        raise refusal(shown(sample.key), "a relative path without empty parts", "rename it")
    if parts[0].startswith("__"):
        raise refusal(shown(sample.key), 'no "__" in front (notes in a WebDataset)', "rename it")
    if steers(sample.key):  # as whoever reads the tar will say
        raise refusal(shown(sample.key), "a key in UTF-8, on one line", "rename it")
    if sample.key in keys:
        raise refusal(
            f"{shown(sample.key)} again, first from {keys[sample.key]}",
            "every key once",
            "rename one of the two",
        )
    members = dict(sample.members)
    if "first.png" in members:
        image = members.pop("first.png")
        members[f"first.{image_kind(image)}"] = image
    if "final.png" in members:
        members["final.png"] = as_png(sample, "final.png")
    names = {"task": sample.task, "category": sample.category, "split": sample.split}
    given = {k: v for k, v in {**sample.fields, **names}.items() if v is not None}
    if given:
        members["json"] = _json(given)
    for suffix, data in members.items():
        too_large = size_refusal(sample.key, sample.source, suffix, len(data))
        if too_large:
            raise too_large
    decode(RawSample(sample.key, sample.source, {k: v for k, v in members.items() if k in GIVEN}))
    parse_meta(sample.key, sample.source, members.get("meta.json"))
    return members


def as_png(sample: NewSample, member: str) -> bytes:
    """An image of a sample as PNG. Raises InstanceError."""
    image = sample.members[member]
    if image_kind(image) == "png":
        return image
    buffer = BytesIO()
    raw = RawSample(sample.key, sample.source, {member: image})
    decode_image(raw, member).save(buffer, "PNG")
    return buffer.getvalue()


def image_kind(image: bytes) -> str:
    """The suffix for an image by its first bytes; what is none of the three, `decode` refuses."""
    if image.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return "png"


def _json(value: Any) -> bytes:
    # Half surrogate pairs cannot be encoded; escaped they can, and `decode` refuses them by name.
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=True).encode()
