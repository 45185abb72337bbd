"""WebDataset samples out of local tars and folders, streamed and still encoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmteach.instances.files import BrokenSourceError, Entry, entries, expand_sources
from vlmteach.instances.sample import (
    FIRST_FRAMES,
    GIVEN,
    HELD_OUT,
    LIMITS,
    InstanceError,
    RawSample,
    shown,
    size_refusal,
    split_name,
)
from vlmteach.types import HeldOut


@dataclass(slots=True)
class Group:
    """A sample being gathered: the sizes of all its members, the bytes of those asked for."""

    key: str
    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)
    problem: InstanceError | None = None

    def add(self, suffix: str, entry: Entry, wanted: frozenset[str]) -> None:
        """Takes one member in: its size, and its bytes where wanted; refuses twins and oversize."""
        twin = next((s for s in self.sizes if s == suffix or {s, suffix} <= set(FIRST_FRAMES)), "")
        if twin:
            self.problem = self.problem or self._refusal(
                suffix, f"also {twin}", "one member of a kind", "remove one of the two"
            )
            return
        self.sizes[suffix] = entry.size
        too_large = size_refusal(self.key, self.source, suffix, entry.size)
        if too_large:
            self.problem = self.problem or too_large
        elif suffix in wanted:
            self.members[suffix] = entry.read()

    def rename(self, key: str, got: str, expected: str, remedy: str) -> None:
        """Makes a refusal of a sample whose key cannot be used, under a key that can."""
        self.key = key
        self.members.clear()
        self.problem = self._refusal("key", got, expected, remedy)

    def _refusal(self, name: str, got: str, expected: str, remedy: str) -> InstanceError:
        return InstanceError(
            key=self.key, source=self.source, field=name, got=got, expected=expected, remedy=remedy
        )


def read_samples(sources: str | Sequence[str]) -> Iterator[RawSample]:
    """Streams the samples of the sources in order, without decoding them.

    Held-out members are passed over, their bytes never read. Keys are unique within one pass: what
    cannot be used arrives as a sample with a `problem`, so that it too can get a row: a key that
    came before (as `<key>.duplicate2`), a source that breaks off (as `<file name>.unreadable`; the
    samples before the break are good, the one at the break is dropped), a source without samples
    (likewise). No real key holds a dot after its last slash, so these names cannot meet one.

    Args:
        sources: as in `expand_sources`.

    Raises:
        ValueError: as in `expand_sources`, at once.
    """
    paths = expand_sources(sources)
    return (
        RawSample(group.key, group.source, group.members, group.problem)
        for group in gather(paths, GIVEN)
    )


def list_keys(sources: str | Sequence[str]) -> list[str]:
    """The keys that `read_samples` gives, in its order; reads headers only."""
    return [group.key for group in gather(expand_sources(sources), frozenset())]


def read_held_out(sources: str | Sequence[str]) -> Iterator[HeldOut]:
    """The held-out members of each sample that has some: for scoring, and for nothing else.

    A sample that `read_samples` refuses has no clip to score and is passed over.

    Raises:
        InstanceError: metadata that is not a JSON object.
        ValueError: as in `expand_sources`, at once.
    """
    groups = gather(expand_sources(sources), HELD_OUT)
    # `map` goes on after an error, where a generator would have ended.
    return map(_held_out, (g for g in groups if g.problem is None and g.members))


def _held_out(group: Group) -> HeldOut:
    return HeldOut(
        key=group.key,
        final_png=group.members.get("final.png"),
        ground_truth_mp4=group.members.get("gt.mp4"),
        meta=parse_meta(group.key, group.source, group.members.get("meta.json")),
    )


def parse_meta(key: str, source: str, data: bytes | None) -> dict | None:
    """The metadata member as a dict; None without one. Raises InstanceError."""
    if data is None:
        return None
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        meta = error
    if isinstance(meta, dict):
        return meta
    raise InstanceError(
        key=key,
        source=source,
        field="meta.json",
        got=shown(meta),
        expected="a JSON object",
        remedy="repair or remove the member",
    )


def gather(paths: Iterable[Path], wanted: frozenset[str]) -> Iterator[Group]:
    """The samples of all paths under unique keys, with the bytes of the wanted members."""
    seen: dict[str, str] = {}  # key -> source
    for path in paths:
        for group in _groups(path, wanted):
            if group.key in seen:
                first, copy = seen[group.key], 2
                while (key := f"{group.key}.duplicate{copy}") in seen:
                    copy += 1
                got = f"{shown(group.key)} again, first seen in {first}"
                group.rename(key, got, "every key once", "rename one of the two samples")
            seen[group.key] = group.source
            yield group


def _groups(path: Path, wanted: frozenset[str]) -> Iterator[Group]:
    source, current, count = str(path), None, 0
    try:
        for entry in entries(path):
            name = split_name(entry.name)
            if name is None or name[1] not in LIMITS:
                continue
            key, suffix = name
            if current is None or current.key != key:
                if current is not None:
                    yield _with_utf8_key(current)
                current, count = Group(key, source), count + 1
            current.add(suffix, entry, wanted)
    except BrokenSourceError as error:
        # The sample in progress may lack its first frame and would pass for text-to-video.
        yield _broken(path, str(error), after=count - 1)
        return
    if current is not None:
        yield _with_utf8_key(current)
    else:
        yield _broken(path, "no sample", after=0)


def _with_utf8_key(group: Group) -> Group:
    try:
        group.key.encode()
    except UnicodeEncodeError:
        key = group.key.encode("utf-8", "backslashreplace").decode() + ".undecodable"
        group.rename(key, shown(group.key), "a key in UTF-8", "rename the sample")
    return group


def _broken(path: Path, got: str, *, after: int) -> Group:
    name = path.resolve().name.encode("utf-8", "backslashreplace").decode()
    key = f"{name}.unreadable"
    problem = InstanceError(
        key=key,
        source=str(path),
        field="tar" if path.is_file() else "folder",
        got=got,
        expected="<key>.prompt.txt and its companions, as `python -m vlmteach.instances pack` "
        "writes them",
        remedy=f"copy or pack it again (samples before the fault: {max(after, 0)})",
    )
    return Group(key, str(path), problem=problem)
