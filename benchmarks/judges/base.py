"""The words between a judge and those who ask it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation: texts and RGB images in the order they are read."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Image, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said."""

    text: str
    served: str | None = None
    """The model that answered by its own account; an alias may stand for a dated release."""
    tokens: dict[str, int] = field(default_factory=dict)
    """What the call took, by the names its provider gives."""


class Judge(Protocol):
    """Reads turns, returns text, as greedily as it can."""

    name: str
    """Identifies the judge in every row and table: another model has another name."""

    def reply(self, turns: tuple[Turn, ...]) -> Reply:
        """The judge's next turn.

        Raises:
            JudgeError: this conversation got no reply; another one may.
            UnusableJudgeError: no conversation will.
        """
        ...


class JudgeError(ValueError):
    """A conversation that the judge gave no reply to."""


class UnusableJudgeError(ValueError):
    """A judge that will reply to nothing as it is set up: a wrong key, address or model name."""
