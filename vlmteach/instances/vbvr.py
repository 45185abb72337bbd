"""VBVR samples, in whatever tree they come.

A sample folder is any that holds `first_frame.png` (or jpg, webp) and `prompt.txt`, in any case,
itself or in a `video` folder within. That covers the official benchmark
(`{In-Domain_50|Out-of-Domain_50}/<task>/<idx>`), its Pro edition (adds `metadata.json`), a
generator's raw output (`<domain>_task/<id>`) and DataFactory's collection
(`questions/<generator>/<domain>_task/<id>`), each as a folder, as a tar, or as a folder of tars.
Tars are streamed and never extracted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath

from vlmteach.instances.files import (
    TARS,
    BrokenEntryError,
    BrokenSourceError,
    Source,
    inside,
    is_tar,
    open_source,
)
from vlmteach.instances.sample import (
    LIMITS,
    InstanceError,
    clean_name,
    is_image,
    shown,
    size_refusal,
    why_no_member,
)
from vlmteach.instances.tally import Tally
from vlmteach.instances.vbvr_tasks import BENCHMARK, SPLITS
from vlmteach.instances.write import NewSample
from vlmteach.text import decode_text, read_file

MEMBERS = {
    **{f"first_frame.{ending}": "first.png" for ending in ("png", "jpg", "jpeg", "webp")},
    **{f"final_frame.{ending}": "final.png" for ending in ("png", "jpg", "jpeg", "webp")},
    "prompt.txt": "prompt.txt",
    "ground_truth.mp4": "gt.mp4",
    "metadata.json": "meta.json",
    "question_metadata.json": "meta.json",
}
"""By file name in lower case."""
GENERATORS = ("_data-generator", "_data-pipeline")
INDEX = "VBVR-Bench.json"
LARGEST_INDEX = 1024 * 2**20
"""Bytes."""


def import_vbvr(source: Path, tally: Tally) -> Iterator[NewSample | InstanceError]:
    """The samples of a tree, a tar or a `VBVR-Bench.json`, and what had to be refused.

    Keys are `<split>/<task>/<idx>` below a split folder, `<generator>/<id>` below a generator's
    folder, and the path within the source otherwise. The split is the folder's name: samples in a
    raw shape belong to none. The category is the benchmark's for the task, or what an index states.
    An index (`VBVR-Bench.json` at the top of the source) fills in the samples that the tree lacks.

    Args:
        tally: is told of every file that is no sample's.
    """
    seen: set[str] = set()
    index = source if source.name == INDEX else source / INDEX
    root = source.parent if source.name == INDEX else source
    tars = [root] if root.is_file() else sorted(p for p in root.rglob("*") if is_tar(p))
    places = tars if root.is_file() else [root, *tars]
    refused: list[InstanceError] = []
    for place in places:
        stem = () if place == root else (*place.relative_to(root).parent.parts, _stem(place))
        parts = place.resolve().parts
        around = parts if place.is_dir() else (*parts[:-1], _stem(place))
        try:
            if place != root:
                inside(root, place)
        except ValueError as error:
            refused.append(_unreadable(place, stem, str(error)))
            continue
        for found in _import_place(place, stem, around, tally):
            if isinstance(found, InstanceError):
                refused.append(found)
            else:
                seen.add(found.key)
                yield found
    if index.is_file():
        for found in _import_index(index, root):
            if found.key not in seen:
                seen.add(found.key)
                yield found
    yield from (error for error in refused if error.key not in seen)


def _stem(tar: Path) -> str:
    return tar.name[: -len(next(end for end in TARS if tar.name.lower().endswith(end)))]


def _unreadable(place: Path, stem: tuple[str, ...], got: str) -> InstanceError:
    return InstanceError(
        key="/".join((*stem, place.name)),
        source=str(place),
        field="tar",
        got=got,
        expected="a whole tar of the source's own",
        remedy="fetch it again; nothing of it was taken",
    )


def _import_place(
    place: Path, stem: tuple[str, ...], around: tuple[str, ...], tally: Tally
) -> Iterator[NewSample | InstanceError]:
    """One folder or tar: a pass over the names, then one over the bytes, in the same order.

    Args:
        stem: what stands before a path within the place to make it a path within the source.
        around: the absolute path of the place, where a generator or split may be named.
    """
    try:
        with open_source(place) as source:
            folders = yield from _survey(place, source, stem, around, tally)
            yield from _read(source, folders)
    except BrokenSourceError as error:
        yield _unreadable(place, stem, str(error))


def _read(
    source: Source, folders: dict[str, tuple[NewSample, dict[str, str]]]
) -> Iterator[NewSample | InstanceError]:
    """Fills the samples of `_survey`, each as soon as it is whole."""
    member_of = {
        name: (folder, member)
        for folder, (_, members) in folders.items()
        for member, name in members.items()
    }
    for entry in source.entries():
        folder, member = member_of.get(entry.name, ("", ""))
        sample, names = folders.get(folder, (None, {}))
        if sample is None or member not in names or member in sample.members:
            continue
        refusal = size_refusal(sample.key, sample.source, member, entry.size)
        try:
            if not refusal and not entry.fault:
                sample.members[member] = entry.read()
        except BrokenEntryError as error:
            refusal = _refusal(sample, member, str(error), "a file that can be read")
        if entry.fault:
            refusal = _refusal(sample, member, entry.fault, "a file of the source")
        if refusal:
            del folders[folder]
            yield refusal
        elif sample.members.keys() == names.keys():
            del folders[folder]
            yield sample


def _refusal(sample: NewSample, member: str, got: str, expected: str) -> InstanceError:
    return InstanceError(
        key=sample.key,
        source=sample.source,
        field=member,
        got=got,
        expected=expected,
        remedy="put one file itself there",
    )


def _survey(
    place: Path, source: Source, stem: tuple[str, ...], around: tuple[str, ...], tally: Tally
) -> Generator[InstanceError, None, dict[str, tuple[NewSample, dict[str, str]]]]:
    """Sample folder -> (sample without members, member -> entry name); yields refusals."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    images: dict[tuple[str, ...], str] = {}
    twins: dict[tuple[str, ...], str] = {}
    for entry in source.entries():
        parts = PurePosixPath(clean_name(entry.name)).parts
        if not parts:
            continue  # "." itself
        member = MEMBERS.get(parts[-1].lower())
        linked = bool(entry.fault) and entry.name.endswith("/")
        if linked or (member and (entry.name.startswith("/") or ".." in parts)):
            yield InstanceError(
                key=entry.name.replace("..", "__").rstrip("/"),
                source=str(place),
                field="path",
                got=entry.fault if linked else shown(entry.name),
                expected="a path within the source",
                remedy="put the folder itself there, or pack the tar again with relative paths",
            )
            continue
        folder = parts[:-2] if parts[-2:-1] == ("video",) else parts[:-1]
        if member is None:
            if is_image(parts[-1]) and not why_no_member(entry.name):
                images.setdefault(folder, parts[-1])
            tally.ignore(why_no_member(entry.name) or "of another name", entry.name)
            continue
        names = found.setdefault(folder, {})
        if member == "first.png" and PurePosixPath(names.get(member, "")).parent == (
            PurePosixPath(entry.name).parent
        ):
            twins[folder] = entry.name
        if member not in names or len(entry.name) < len(names[member]):
            names[member] = entry.name
    folders = {}
    for folder, names in found.items():
        key, task, split = _identify((*stem, *folder), (*around, *folder))
        where = str(place.joinpath(*folder)) if place.is_dir() else f"{place}:{'/'.join(folder)}"
        sample = NewSample(key, where, {}, task=task, category=_category(task), split=split)
        if folder in twins:
            tally.refused += len(names) - 1
            got = f"{shown(names['first.png'])} and {shown(twins[folder])}"
            yield _refusal(sample, "first.png", got, "one first frame")
        elif {"first.png", "prompt.txt"} <= names.keys():
            folders["/".join(folder)] = sample, names
        elif folder in images or {"first.png", "final.png", "gt.mp4"} & names.keys():
            missing = "prompt.txt" if "first.png" in names else "first_frame.png"
            beside = f", and {shown(images[folder])} beside it" if folder in images else ""
            tally.refused += len(names) - 1
            yield InstanceError(
                key=key,
                source=where,
                field=missing,
                got=f"no such file{beside}",
                expected="first_frame.png (or jpg, webp) and prompt.txt",
                remedy="add it, or remove the folder",
            )
        else:
            tally.ignore("of no sample", "/".join((*folder, *names.values())))
    return folders


def _identify(
    within: tuple[str, ...], absolute: tuple[str, ...]
) -> tuple[str, str | None, str | None]:
    """(key, task, split) of a sample folder, from its path within the source and in full."""
    last = len(absolute) - 1
    for at in range(last - 2, -1, -1):
        if absolute[at] in SPLITS:
            return "/".join(absolute[at:]), absolute[at + 1], absolute[at]
    for at in range(last - 1, -1, -1):
        if absolute[at].endswith(GENERATORS):
            return f"{absolute[at]}/{absolute[-1]}", absolute[at], None
    key = "/".join(within) or absolute[-1]
    return key, within[-2] if len(within) > 1 else None, None


def _category(task: str | None) -> str | None:
    return BENCHMARK[task][1] if task in BENCHMARK else None


def _import_index(index: Path, root: Path) -> Iterator[NewSample | InstanceError]:
    """The samples an index describes: prompt and first frame from it, the rest from beside it."""
    try:
        rows = json.loads(decode_text(read_file(index, LARGEST_INDEX)))
        if not isinstance(rows, list):
            raise ValueError(f"{shown(rows)} is not a list")
    except (ValueError, RecursionError) as error:
        yield InstanceError(
            key=INDEX,
            source=str(index),
            field="file",
            got=str(error),
            expected="a JSON array of samples",
            remedy="fetch it again",
        )
        return
    for number, row in enumerate(rows):
        where = f"{index}: row {number}"
        try:
            path = PurePosixPath(row["first_frame_path"])
            prompt, image = row["prompt"].encode(), base64.b64decode(row["first_image"])
            held_out = {
                member: inside(root, root / row[name])
                for member, name in (
                    ("final.png", "final_frame_path"),
                    ("gt.mp4", "ground_truth_video_path"),
                )
                if isinstance(row.get(name), str)
            }
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            yield InstanceError(
                key=f"{INDEX}/{number}",
                source=where,
                field="row",
                got=shown(error),
                expected="first_frame_path, prompt, first_image (base64), paths that stay inside",
                remedy="repair the row",
            )
            continue
        folder = path.parent.parts
        key, task, split = _identify(folder, folder)
        members = {"prompt.txt": prompt, "first.png": image}
        try:
            files = {m: p for m, p in held_out.items() if p.is_file()}
            members |= {m: read_file(p, LIMITS[m]) for m, p in files.items()}
        except ValueError as error:
            yield _refusal(NewSample(key, where, {}), "row", str(error), "files that can be read")
            continue
        category = row.get("category") or _category(task)
        yield NewSample(key, where, members, task=task, split=split, category=category)
