"""Which members make a sample, and which image may be one that a sample lacks.

A sample whose image was not taken must never pass for text-to-video: where a prompt has no first
frame, every image that could have been meant is looked for, and the sample refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlmteach.instances.files import TARS, BrokenEntryError, Entry
from vlmteach.instances.sample import (
    FIRST_FRAMES,
    InstanceError,
    clean_name,
    is_image,
    shown,
    size_refusal,
    split_name,
    why_no_member,
)
from vlmteach.instances.tally import Tally

LONGEST_NAME = 1024
"""Characters of a file's name and folders."""
_SEPARATORS = frozenset("._-/ ")
_COMMON = re.compile(
    r"(first|start|init|input|image|img|frame|source|cond|picture|photo)[a-z0-9 _-]*\.[a-z0-9]+",
    re.IGNORECASE,
)
"""What a first frame is called that carries no key."""


@dataclass(slots=True)
class Group:
    """A sample being gathered: all its members, and the bytes of those asked for."""

    key: str
    source: str
    entries: dict[str, Entry] = field(default_factory=dict)
    """By suffix."""
    members: dict[str, bytes] = field(default_factory=dict)
    problem: InstanceError | None = None
    seen: int = 0
    """Files that were meant for it, twins among them."""

    def add(self, suffix: str, entry: Entry) -> None:
        """Takes one member in; refuses twins, oversize, and what cannot be read."""
        self.seen += 1
        twin = next((s for s in self.entries if s == suffix or {s, suffix} <= {*FIRST_FRAMES}), "")
        if twin:
            self.refuse(suffix, f"also {twin}", "one member of a kind", "remove one of the two")
            return
        self.entries[suffix] = entry
        if entry.fault:
            self.refuse(suffix, entry.fault, "a file of the source", "put the file itself there")
        elif too_large := size_refusal(self.key, self.source, suffix, entry.size):
            self.problem = self.problem or too_large

    def load(self, wanted: frozenset[str]) -> None:
        """Reads the members that are wanted; a file of a folder that cannot be read is a refusal.

        Raises:
            BrokenSourceError: the source itself cannot be read on.
        """
        for suffix, entry in sorted(self.entries.items(), key=lambda item: item[1].at):
            if suffix in wanted and self.problem is None:
                try:
                    self.members[suffix] = entry.read()
                except BrokenEntryError as error:
                    self.refuse(suffix, str(error), "a file that can be read", "mend it")

    def lacks_image(self) -> bool:
        """Whether it would pass for text-to-video."""
        return (
            self.problem is None
            and "prompt.txt" in self.entries
            and self.entries.keys().isdisjoint(FIRST_FRAMES)
        )

    def refuse(self, name: str, got: str, expected: str, remedy: str) -> None:
        """Makes a refusal of the sample; the first one stands."""
        self.problem = self.problem or InstanceError(
            key=self.key, source=self.source, field=name, got=got, expected=expected, remedy=remedy
        )

    def rename(self, key: str, got: str, expected: str, remedy: str) -> None:
        """Makes a refusal of a sample whose key cannot be used, under a key that can."""
        self.key, self.problem, self.members = key, None, {}
        self.refuse("key", got, expected, remedy)


class Survey:
    """The names of one source, sorted into samples.

    Args:
        source: for messages.
        forward: whether the source can be read in one direction only.
    """

    def __init__(self, source: str, *, forward: bool) -> None:
        self.source = source
        self.forward = forward
        self.broken = ""
        """What made the source end before its end."""
        self._groups: dict[str, Group] = {}
        self._last: Group | None = None
        self._scattered = False  # members of a sample with another sample's between them
        self._images: list[Entry] = []  # that are no members
        self._texts: set[str] = set()  # x of every x.txt that is no member
        self._others: list[tuple[str, str]] = []  # why ignored, name
        self._lost: list[Group] = []  # what may hold samples and was not gone into

    def add(self, entry: Entry) -> None:
        """Takes one file in."""
        name = clean_name(entry.name)
        if len(name) > LONGEST_NAME:
            self._lose(f"{name[:60]}...", f"a name of {len(name)} characters", "shorten it")
        elif entry.fault and name.endswith("/"):
            self._lose(name.rstrip("/"), entry.fault, "put the folder itself there")
        elif why := why_no_member(name):
            self._others.append((why, name))
        elif found := split_name(name):
            group = self._groups.get(found[0])
            if group is None:
                group = self._groups[found[0]] = Group(found[0], self.source)
            elif group is not self._last:
                self._scattered = True
            group.add(found[1], entry)
            self._last = group
        elif is_image(name):
            self._images.append(entry)
        elif name.lower().endswith(TARS) and "/" in name:
            self._lose(name, "a tar in a folder within", "name it as a source of its own")
        else:
            if name.lower().endswith(".txt"):
                self._texts.add(name[:-4])
            self._others.append(("of another name", name))

    def _lose(self, name: str, got: str, remedy: str) -> None:
        group = Group(f"{name}.unreadable", self.source, seen=1)
        group.refuse("file", got, "members of samples", remedy)
        self._lost.append(group)

    def settled(self, tally: Tally) -> Iterator[Group]:
        """The samples, by first member; those that lack something are refused.

        Args:
            tally: is told of every file that belongs to none.
        """
        if self.broken and self._last is not None:
            del self._groups[self._last.key]  # it may lack what lay behind the break
            tally.refused += self._last.seen
        strays = self._strays()
        for name in strays:
            tally.ignore("images that no sample took", name)
        for why, name in self._others:
            tally.ignore(why, name)
        for group in self._groups.values():
            if "prompt.txt" not in group.entries:
                got = f"only {sorted(group.entries)}"
                group.refuse("prompt.txt", got, "a prompt", "add <key>.prompt.txt")
        self._refuse_for_images(strays)
        if self.broken:
            self._refuse_doubtful()
        if self.forward:
            self._refuse_backward()
        yield from self._groups.values()
        yield from self._lost

    def _strays(self) -> list[str]:
        """Takes the images that are named like their prompts, `a.jpg` beside `a.prompt.txt`;
        returns the names of the others, having refused a sample where only its prompt is missing.
        """
        taken, strays = set[str](), []
        for image in self._images:
            name = clean_name(image.name)
            stem, _, ending = name.rpartition(".")
            group, suffix = self._groups.get(stem), f"first.{ending.lower()}"
            if (
                group is not None
                and suffix in FIRST_FRAMES
                and "prompt.txt" in group.entries
                and (group.lacks_image() or stem in taken)
            ):
                group.add(suffix, image)
                taken.add(stem)
                continue
            strays.append(name)
            for text in (stem, f"{name.rpartition('/')[0]}/prompt".lstrip("/")):
                if text in self._texts and text not in self._groups:
                    lost = self._groups[text] = Group(text, self.source)
                    got = f"{shown(f'{text}.txt')} and {shown(name)}"
                    remedy = "name it so, or import the folder with `pack`"
                    lost.refuse("prompt.txt", got, "<key>.prompt.txt", remedy)
        return strays

    def _refuse_for_images(self, strays: list[str]) -> None:
        """Refuses the samples without a first frame that an image nobody took may be meant for."""
        by_key: dict[str, list[Group]] = {}
        by_folder: dict[str, list[Group]] = {}
        for group in self._groups.values():
            if group.lacks_image():
                folder, _, base = group.key.rpartition("/")
                by_folder.setdefault(folder, []).append(group)
                for key in {group.key.casefold(), base.casefold()}:  # images may have their folder
                    by_key.setdefault(key, []).append(group)
            elif "prompt.txt" not in group.entries and not group.entries.keys().isdisjoint(
                FIRST_FRAMES
            ):
                strays = [*strays, f"{group.key}.first.png"]
        lengths = {len(key) for key in by_key}
        for name in strays:
            folder, _, base = name.rpartition("/")
            meant = by_folder.pop(folder, []) if _COMMON.fullmatch(base) else []
            for folded in (name.casefold(), base.casefold()):
                for length in lengths:
                    if folded[length : length + 1] in _SEPARATORS:
                        meant += by_key.pop(folded[:length], [])
            for group in meant:
                group.refuse(
                    "first.png",
                    f"none, and {shown(name)} beside it",
                    "<key>.first.png, .jpg or .webp",
                    "name the image so (converted, if need be), or take it out",
                )

    def _refuse_doubtful(self) -> None:
        """Refuses what may lack a member that lay behind the break."""
        for group in self._groups.values():
            if self._scattered or group.lacks_image():
                group.refuse(
                    "source",
                    self.broken,
                    "a whole source: the sample's other members may lie behind the break",
                    "copy or pack it again",
                )

    def _refuse_backward(self) -> None:
        """Refuses what could only be read by starting over."""
        furthest = -1
        for group in self._groups.values():
            places = [entry.at for entry in group.entries.values()]
            if group.problem is None and min(places) < furthest:
                group.refuse(
                    "members",
                    "others' between them, in a compressed tar",
                    "the members of a sample side by side",
                    "decompress the tar, or pack it again",
                )
            elif group.problem is None:
                furthest = max(places)
