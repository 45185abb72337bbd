"""VBVR samples, in whatever tree they come.

A sample folder is any that holds `first_frame.png` and `prompt.txt`, itself or in a `video` folder
within. That covers the official benchmark (`{In-Domain_50|Out-of-Domain_50}/<task>/<idx>`), its Pro
edition (adds `metadata.json`), a generator's raw output (`<domain>_task/<id>`) and DataFactory's
collection (`questions/<generator>/<domain>_task/<id>`), each as a folder, as a tar, or as a folder
of tars. Tars are streamed and never extracted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vlmteach.instances.files import TARS, BrokenSourceError, entries, is_tar
from vlmteach.instances.rows import inside
from vlmteach.instances.sample import InstanceError, shown, size_refusal
from vlmteach.instances.vbvr_tasks import BENCHMARK, SPLITS
from vlmteach.instances.write import NewSample

MEMBERS = {
    "first_frame.png": "first.png",
    "prompt.txt": "prompt.txt",
    "final_frame.png": "final.png",
    "ground_truth.mp4": "gt.mp4",
    "metadata.json": "meta.json",
    "question_metadata.json": "meta.json",
}
GENERATORS = ("_data-generator", "_data-pipeline")
INDEX = "VBVR-Bench.json"


def import_vbvr(source: Path) -> Iterator[NewSample | InstanceError]:
    """The samples of a tree, a tar or a `VBVR-Bench.json`, and what had to be refused.

    Keys are `<split>/<task>/<idx>` below a split folder, `<generator>/<id>` below a generator's
    folder, and the path within the source otherwise. The split is the folder's name: samples in a
    raw shape belong to none. The category is the benchmark's for the task, or what an index states.
    An index (`VBVR-Bench.json` at the top of the source) fills in the samples that the tree lacks.
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
        for found in _import_place(place, stem, around):
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


def _import_place(
    place: Path, stem: tuple[str, ...], around: tuple[str, ...]
) -> Iterator[NewSample | InstanceError]:
    """One folder or tar: a pass over the names, then one over the bytes, in the same order.

    Args:
        stem: what stands before a path within the place to make it a path within the source.
        around: the absolute path of the place, where a generator or split may be named.
    """
    try:
        folders = yield from _survey(place, stem, around)
        member_of = {
            name: (folder, member)
            for folder, (_, members) in folders.items()
            for member, name in members.items()
        }
        gathered: dict[str, dict[str, bytes]] = {folder: {} for folder in folders}
        for entry in entries(place):
            folder, member = member_of.get(entry.name, ("", ""))
            sample, names = folders.get(folder, (None, {}))
            if sample is None or member not in names:
                continue
            refusal = size_refusal(sample.key, sample.source, member, entry.size)
            if refusal:
                del folders[folder], gathered[folder]
                yield refusal
                continue
            gathered[folder][member] = entry.read()
            if gathered[folder].keys() == names.keys():
                sample.members.update(gathered.pop(folder))
                del folders[folder]
                yield sample
    except BrokenSourceError as error:
        yield InstanceError(
            key="/".join((*stem, place.name)),
            source=str(place),
            field="tar",
            got=str(error),
            expected="a whole tar",
            remedy="fetch it again; nothing of it was taken",
        )


def _survey(place: Path, stem: tuple[str, ...], around: tuple[str, ...]) -> Any:
    """Sample folder -> (sample without members, member -> entry name); yields refusals."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for entry in entries(place):
        parts = PurePosixPath(entry.name.removeprefix("./")).parts
        if parts[-1] not in MEMBERS:
            continue
        if entry.name.startswith("/") or ".." in parts:
            yield InstanceError(
                key=entry.name.replace("..", "__"),
                source=str(place),
                field="path",
                got=shown(entry.name),
                expected="a path within the tar",
                remedy="pack the tar again with relative paths",
            )
            continue
        folder = parts[:-2] if parts[-2:-1] == ("video",) else parts[:-1]
        names = found.setdefault(folder, {})
        member = MEMBERS[parts[-1]]
        if member not in names or len(entry.name) < len(names[member]):
            names[member] = entry.name
    folders = {}
    for folder, names in found.items():
        key, task, split = _identify((*stem, *folder), (*around, *folder))
        where = str(place.joinpath(*folder)) if place.is_dir() else f"{place}:{'/'.join(folder)}"
        if {"first.png", "prompt.txt"} <= names.keys():
            sample = NewSample(key, where, {}, task=task, category=_category(task), split=split)
            folders["/".join(folder)] = sample, names
        elif {"first.png", "final.png", "gt.mp4"} & names.keys():
            missing = "prompt.txt" if "first.png" in names else "first_frame.png"
            yield InstanceError(
                key=key,
                source=where,
                field=missing,
                got="no such file",
                expected="first_frame.png and prompt.txt",
                remedy="add it, or remove the folder",
            )
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
        rows = json.loads(index.read_bytes())
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
                member: inside(root, row[name])
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
        members |= {m: p.read_bytes() for m, p in held_out.items() if p.is_file()}
        category = row.get("category") or _category(task)
        yield NewSample(key, where, members, task=task, split=split, category=category)
