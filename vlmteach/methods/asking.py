"""What the teacher writes for a method: asked for, checked, asked for again, and recorded.

The teacher's replies are text of unknown origin. Each request names one JSON object; a reply
without it is refused, and the method goes on with a last resort and says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vlmteach.methods.base import Work
from vlmteach.queries import json_objects, quote, with_refusals

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PROMPT = 2000
"""Characters in a prompt the teacher writes."""
MAX_TEXT = 4000
"""Characters kept of free text, such as an analysis."""
PROMPT_TOKENS = 320
"""Of a reply with a prompt: 300 for the prompt (VideoTPO's limit), the rest for the JSON."""
VERDICT_TOKENS = 24
"""Of a reply with a number."""
RULES = """\
The prompt must be one paragraph of plain text, at most 300 tokens. It says only what is to be seen.
"""
"""Of a prompt that is asked for; ends with a line break."""

_TAG = re.compile(r"<[^<>\s]+>")

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
    work: Work,
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
        work: counts the calls and their time.
        request: what to write.
        images: in the order the request speaks of them.
        parse: the reply's meaning; raises ValueError, in words the teacher can act on.
        max_replies: replies at most, at least 1.
        max_new_tokens: of each reply; a reply that is cut is no whole JSON object.
    """
    refusals: list[str] = []
    while len(refusals) < max_replies:
        reply = work.write(with_refusals(request, refusals), images, max_new_tokens)
        try:
            value = parse(reply)
        except ValueError as refusal:
            refusals.append(str(refusal))
        else:
            return Answer(value, len(refusals) + 1, tuple(refusals))
    return Answer(None, max_replies, tuple(refusals))


def last_object(reply: str, field: str, form: str) -> dict[str, Any]:
    """The last JSON object of a reply that has a field: an earlier one may repeat the request.

    Raises:
        ValueError: there is none; `form` is what the message says was expected.
    """
    found = [thing for thing in json_objects(reply) if field in thing]
    if not found:
        raise ValueError(f"got {quote(reply)}, expected a JSON object {form}")
    return found[-1]


def parse_prompt(reply: str) -> str:
    """The prompt in a reply of the form `{"prompt": "..."}`, as one line.

    Raises:
        ValueError: there is none, or it is no prompt (see `checked_prompt`).
    """
    form = '{"prompt": "..."}'
    thing = last_object(reply, "prompt", form)
    if thing.keys() != {"prompt"}:
        raise ValueError(f"got the fields {quote(sorted(thing))}, expected only {form}")
    return checked_prompt(thing["prompt"])


def checked_prompt(value: object) -> str:
    """A prompt for the reasoner, as one line.

    Raises:
        ValueError: it is no string, has no word, is longer than `MAX_PROMPT`, or holds a tag such
            as `<...>` (a tokenizer may take it for more than text) or a control character.
    """
    if not isinstance(value, str):
        raise ValueError(f'"prompt": got {quote(value)}, expected a string')
    text = " ".join(value.split())
    if not any(character.isalpha() for character in text):
        raise ValueError(f'"prompt": got {quote(value)}, expected words')
    if len(text) > MAX_PROMPT:
        raise ValueError(f'"prompt": got {len(text)} characters, expected at most {MAX_PROMPT}')
    if tag := _TAG.search(text):
        raise ValueError(f'"prompt": got {quote(tag[0])} in it, expected plain text without tags')
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError('"prompt": got a control character in it, expected plain text')
    return text


def parse_text(reply: str) -> str:
    """Free text, made safe to be told to the teacher again.

    Angle brackets become round, as they could spell a special token, and what is beyond
    `MAX_TEXT` characters is dropped.

    Raises:
        ValueError: there is no word in it.
    """
    if not any(character.isalpha() for character in reply):
        raise ValueError(f"got {quote(reply)}, expected a text")
    return reply.strip()[:MAX_TEXT].replace("<", "(").replace(">", ")")


def parse_pick(reply: str, count: int) -> int:
    """The candidate, from 0, in a reply of the form `{"best": n}` with n from 1 to `count`.

    Raises:
        ValueError: there is none.
    """
    form = f'{{"best": n}} with a whole n from 1 to {count}'
    thing = last_object(reply, "best", form)
    best = thing["best"]
    if thing.keys() != {"best"} or type(best) is not int or not 1 <= best <= count:
        raise ValueError(f"got {quote(thing)}, expected {form}")
    return best - 1
