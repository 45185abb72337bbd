"""What a method's requests have in common, and what a usable reply to each is.

`vlmteach.asking` asks; a parser here gives the reply's meaning, or refuses it in words that the
teacher can act on.
"""

from __future__ import annotations

import re
import unicodedata

from vlmteach.asking import last_object, quote

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
