"""WebDataset samples out of local tars and folders, still encoded.

A source is first gone through by its headers, so that the members of a sample may lie anywhere in
it; the bytes follow one sample at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vlmteach.instances.files import (
    BrokenSourceError,
    Source,
    expand_sources,
    open_source,
)
from vlmteach.instances.group import Group, Survey
from vlmteach.instances.sample import GIVEN, HELD_OUT, InstanceError, RawSample, shown, steers
from vlmteach.instances.tally import Tally
from vlmteach.text import printable
from vlmteach.types import HeldOut


class Listing(NamedTuple):
    """What the headers of the sources say."""

    keys: list[str]
    """Those that `read_samples` gives, in its order."""
    tally: Tally


def read_samples(sources: str | Sequence[str]) -> Iterator[RawSample]:
    """The samples of the sources in order of their first members, without decoding them.

    Held-out members are passed over, their bytes never read. Keys are unique within one pass: what
    cannot be used arrives as a sample with a `problem`, so that it too can get a row: a key that
    came before (as `<key>.duplicate2`), a source that breaks off or changes while it is read (as
    `<file name>.unreadable`; the samples before the break are good, the one at the break is
    dropped), a source without samples (likewise).

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


def list_samples(sources: str | Sequence[str]) -> Listing:
    """The keys that `read_samples` gives and what became of every member; reads headers only."""
    tally = Tally()
    keys = [group.key for group in gather(expand_sources(sources), frozenset(), tally)]
    return Listing(keys, tally)


def list_keys(sources: str | Sequence[str]) -> list[str]:
    """The keys that `read_samples` gives, in its order; reads headers only."""
    return list_samples(sources).keys


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


def gather(
    paths: Iterable[Path], wanted: frozenset[str], tally: Tally | None = None
) -> Iterator[Group]:
    """The samples of all paths under unique keys, with the bytes of the wanted members.

    Args:
        tally: counts the members.
    """
    tally = tally or Tally()
    seen: dict[str, str] = {}  # key -> source
    copies: dict[str, int] = {}
    for path in paths:
        for group in _groups(path, wanted, tally):
            _with_plain_key(group)
            if group.key in seen:
                first, copy = seen[group.key], copies.get(group.key, 1) + 1
                while (key := f"{group.key}.duplicate{copy}") in seen:
                    copy += 1
                copies[group.key] = copy
                got = f"{shown(group.key)} again, first seen in {first}"
                group.rename(key, got, "every key once", "rename one of the two samples")
            seen[group.key] = group.source
            if group.problem is None:
                tally.used += group.seen
            else:
                tally.refused += group.seen
            yield group


def _groups(path: Path, wanted: frozenset[str], tally: Tally) -> Iterator[Group]:
    read = 0
    try:
        with open_source(path) as source:
            survey = _survey(path, source)
            for group in survey.settled(tally):
                try:
                    group.load(wanted)
                except BrokenSourceError as error:
                    if not survey.broken:
                        raise
                    # A damaged compressed tar gives up its bytes or not by the size of the bites.
                    group.refuse("tar", str(error), "a whole tar", "copy or pack it again")
                yield group
                read += 1
                group.members = {}
    except BrokenSourceError as error:
        yield _broken(path, str(error), after=read)
        return
    if survey.broken:
        yield _broken(path, survey.broken, after=read)
    elif not read:
        yield _broken(path, "no sample", after=0)


def _survey(path: Path, source: Source) -> Survey:
    survey = Survey(str(path), forward=source.forward)
    try:
        for entry in source.entries():
            survey.add(entry)
    except BrokenSourceError as error:
        survey.broken = str(error)
    return survey


def _with_plain_key(group: Group) -> None:
    """Refuses a key that is no UTF-8 or could steer whatever shows it."""
    if not steers(group.key):
        return
    key = group.key.encode("unicode_escape").decode("ascii")
    group.rename(
        f"{key}.undecodable", shown(group.key), "a key in UTF-8, on one line", "rename the sample"
    )


def _broken(path: Path, got: str, *, after: int) -> Group:
    group = Group(f"{printable(path.resolve().name)}.unreadable", str(path))
    group.refuse(
        "folder" if path.is_dir() else "tar",
        got,
        "<key>.prompt.txt and its companions, as `python -m vlmteach.instances pack` writes them",
        f"copy or pack it again (samples before the fault: {max(after, 0)})",
    )
    return group
