"""The files of the sources, counted: which were taken, which not, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vlmteach.text import printable


@dataclass(slots=True)
class Tally:
    """What became of every file that was seen."""

    used: int = 0
    """In samples that can be read."""
    refused: int = 0
    """In samples that were refused."""
    ignored: Counter[str] = field(default_factory=Counter)
    """By reason."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> the first name."""

    def ignore(self, why: str, name: str) -> None:
        """Counts a file that belongs to no sample."""
        self.ignored[why] += 1
        self.examples.setdefault(why, name[-100:])

    def told(self) -> str:
        """One line: members seen, used, of refused samples, ignored, and why."""
        ignored = self.ignored.total()
        why = "; ".join(
            f"{number} {reason}, such as {printable(self.examples[reason])!r}"
            for reason, number in self.ignored.most_common()
        )
        return (
            f"members: {self.used + self.refused + ignored} seen, {self.used} used, {self.refused} "
            f"of refused samples, {ignored} ignored{f' ({why})' if why else ''}"
        )
