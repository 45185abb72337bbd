"""Where a sample and its video lie: `{In-Domain_50|Out-of-Domain_50}/<task>/<5 digits>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmteach.instances.vbvr_tasks import BENCHMARK, SPLITS
from vlmteach.types import Instance

TRUTH = ("first_frame.png", "final_frame.png", "ground_truth.mp4", "prompt.txt")
"""The files of a sample in the official tree."""
DIGITS = 5

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
"""A name that is a folder's and nothing else."""
_NUMBER = re.compile(r"[0-9]{1,18}$")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One sample of the benchmark."""

    split: str
    task: str
    index: str
    """`DIGITS` digits."""

    @property
    def folder(self) -> str:
        """Its files in the data tree, relative."""
        return f"{self.split}/{self.task}/{self.index}"

    @property
    def video(self) -> str:
        """A model's video of it, relative to the model's folder."""
        return f"{self.folder}.mp4"


@dataclass(frozen=True, slots=True)
class Named:
    """What the place of an instance follows from."""

    key: str
    task: str | None
    split: str | None

    @classmethod
    def of(cls, instance: Instance) -> Named:
        """What the layout needs of an instance."""
        return cls(instance.key, instance.task, instance.split)


def listed(lines: Sequence[str], at_most: int = 10) -> str:
    """Lines for an error message, the first few of many."""
    rest = len(lines) - at_most
    return "\n  ".join(("", *lines[:at_most], *([f"... and {rest} more"] if rest > 0 else [])))


def assign(instances: Iterable[Named], split_name: str | None = None) -> dict[str, Place]:
    """Key -> place, the same for the same set of instances.

    An official sample keeps its own. A sample in a raw shape has neither split nor index: its split
    is that of its task in the benchmark, or `split_name` for a task that is not one of the hundred;
    its index is the number its key ends in, as the generators number them. In a task where these
    are no distinct numbers of at most five digits, samples are counted in the order of their keys.

    Raises:
        ValueError: an instance without a task or split, a task that cannot name a folder, or an
            official sample that shares its index with another.
    """
    problems: list[str] = []
    by_task: dict[tuple[str, str], list[Named]] = {}
    for named in instances:
        task = named.task or ""
        split = named.split or BENCHMARK.get(task, (split_name, ""))[0]
        if not PLAIN.fullmatch(task):
            problems.append(f"{named.key!r}: got task {named.task!r}, expected a plain name")
        elif split is None:
            problems.append(f"{named.key!r}: {task} is not one of the hundred; give --split-name")
        elif split not in SPLITS:
            problems.append(f"{named.key!r}: got split {split!r}, expected one of {SPLITS}")
        else:
            by_task.setdefault((split, task), []).append(named)
    places: dict[str, Place] = {}
    for (split, task), group in sorted(by_task.items(), key=lambda item: item[0]):
        ends = [_NUMBER.search(named.key) for named in group]
        numbers = [int(end[0]) for end in ends if end is not None]
        if len(set(numbers)) < len(group) or max(numbers) >= 10**DIGITS:
            if any(named.split for named in group):
                problems.append(f"{split}/{task}: got one index for two samples; rename one")
            group = sorted(group, key=lambda named: named.key)
            numbers = list(range(len(group)))
        for named, number in zip(group, numbers, strict=True):
            places[named.key] = Place(split, task, f"{number:0{DIGITS}d}")
    if problems:
        raise ValueError(
            f"--instances: got {len(problems)} faults, expected task and split as `python -m "
            "vlmteach.instances pack` finds them in a VBVR tree:" + listed(problems)
        )
    return places


def places_in(data: Path) -> list[Place]:
    """The samples of an official data tree.

    Raises:
        ValueError: no sample, or one that lacks a file: the EvalKit would score on without it.
    """
    found = sorted(
        Place(split, folder.parent.name, folder.name)
        for split in SPLITS
        for folder in data.glob(f"{split}/*/*")
        if folder.is_dir() and re.fullmatch(r"\d{5}", folder.name)
    )
    if not found:
        raise ValueError(
            f"--data: got {data}, expected {SPLITS[0]}/<task>/<5 digits>/ in it; the benchmark's "
            "data set has that shape, and `python -m benchmarks.vbvr tree` makes it of a tar"
        )
    lacking = [
        f"{place.folder}: no {name}"
        for place in found
        for name in TRUTH
        if not (data / place.folder / name).is_file()
    ]
    if lacking:
        raise ValueError(
            f"--data: got {len(lacking)} files missing in {data}, expected {', '.join(TRUTH)} of "
            "every sample; fetch the data set again:" + listed(lacking)
        )
    return found


def compare(folder: Path, expected: Iterable[str]) -> tuple[list[str], list[str]]:
    """(missing, left over): the files of a folder against those expected, relative paths."""
    wanted = set(expected)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(wanted - found), sorted(found - wanted)


def refuse_leftovers(folder: Path, leftover: Sequence[str]) -> None:
    """Raises ValueError when a folder holds what does not belong there."""
    if leftover:
        raise ValueError(
            f"{folder}: got {len(leftover)} files that belong to no sample of these instances, "
            "expected none; remove the folder or take another name:" + listed(leftover)
        )
