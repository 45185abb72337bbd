"""Asking a teacher to write: the reply checked, asked for again, and what came of it.

The replies are text of unknown origin. Each request names one JSON object; a reply without it is
refused, and whoever asked goes on with a last resort and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.teachers.base import Writer

_ROUND = str.maketrans("<>", "()")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of a request."""

    value: T | None
    """None when every reply was refused."""
    replies: int
    """Replies the teacher wrote."""
    refusals: tuple[str, ...]
    """Why each refused reply was, in order."""


def ask(
    writer: Writer,
    request: str,
    images: Sequence[Image],
    parse: Callable[[str], T],
    *,
    max_replies: int,
    max_new_tokens: int,
) -> Answer[T]:
    """Asks the teacher until `parse` takes its reply.

    The teacher's text is greedy, so each new request tells it every reason so far.

    Args:
        writer: the teacher, or what counts its calls.
        request: what to write.
        images: in the order the request speaks of them.
        parse: the reply's meaning; raises ValueError, in words the teacher can act on.
        max_replies: replies at most, at least 1.
        max_new_tokens: of each reply; a reply that is cut is no whole JSON object.
    """
    refusals: list[str] = []
    while len(refusals) < max_replies:
        reply = writer.write(with_refusals(request, refusals), images, max_new_tokens)
        try:
            value = parse(reply)
        except ValueError as refusal:
            refusals.append(str(refusal))
        else:
            return Answer(value, len(refusals) + 1, tuple(refusals))
    return Answer(None, max_replies, tuple(refusals))


def with_refusals(text: str, refusals: Sequence[str]) -> str:
    """A request that also says why earlier replies to it were refused; unchanged without any.

    Angle brackets become round: a refusal quotes the reply, which may spell a special token.
    """
    if refusals:
        told = (reason.translate(_ROUND) for reason in refusals)
        text += "\nEarlier replies were refused; avoid these faults:\n"
        text += "\n".join(f"{n}. {reason}" for n, reason in enumerate(told, start=1))
    return text


def json_objects(text: str) -> list[dict[str, Any]]:
    """Every JSON object in a teacher's reply that is not inside another one.

    An object with half a character in it (a lone surrogate, as `"\\ud800"` spells it) is left out:
    no file and no tokenizer takes it.
    """
    decoder = json.JSONDecoder(strict=False)  # a raw line break inside a string is no reason
    objects: list[dict[str, Any]] = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            end = at + 1
        else:
            objects.append(value)
        at = text.find("{", end)
    return objects


def quote(value: object) -> str:
    """A value as JSON for a message, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:160]}..."


def last_object(reply: str, field: str, form: str) -> dict[str, Any]:
    """The last JSON object of a reply that has a field: an earlier one may repeat the request.

    Raises:
        ValueError: there is none; `form` is what the message says was expected.
    """
    found = [thing for thing in json_objects(reply) if field in thing]
    if not found:
        raise ValueError(f"got {quote(reply)}, expected a JSON object {form}")
    return found[-1]
