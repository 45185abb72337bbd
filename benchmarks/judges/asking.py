"""Asking a judge until its answer can be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.judges.base import Judge, Turn

ASKS = 3
"""Times a judge is asked for an answer that can be read."""
LONGEST_ANSWER = 2**17
"""Characters."""
_TOKEN = re.compile(r"<[|\uff5c][^<>]{1,40}[|\uff5c]>|</?s>|<(?:eos|end_of_turn)>")

T = TypeVar("T")


class AnswerError(ValueError):
    """A reply that holds no answer of the form asked for."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a judge answered, and what it took."""

    value: T
    asks: int
    """Times it was asked."""
    served: str | None
    tokens: dict[str, int]
    """Over all asks."""


def ask(
    judge: Judge,
    opening: tuple[Turn, ...],
    read: Callable[[str], T],
    again: tuple[str, str],
) -> Answer[T]:
    """Asks, and asks again with what was wrong.

    Judges are greedy: the same words would bring the same reply, so no two asks are alike.

    Args:
        judge: who is asked.
        opening: the conversation up to the judge's answer; its last turn is the user's.
        read: the reply's meaning; raises AnswerError.
        again: what is said to the first and to the second reply that could not be read, with
            `{fault}` in it.

    Raises:
        AnswerError: none of `ASKS` replies could be read.
        JudgeError: the judge did not reply.
        UnusableJudgeError: it will reply to nothing.
    """
    tokens: dict[str, int] = {}
    said, fault, last = opening, "", ""
    for asks in range(1, ASKS + 1):
        reply = judge.reply(said)
        for name, count in reply.tokens.items():
            tokens[name] = tokens.get(name, 0) + count
        try:
            return Answer(read(reply.text), asks, reply.served, tokens)
        except AnswerError as error:
            fault, last = str(error), reply.text
        if asks < ASKS:
            words = again[asks - 1].format(fault=fault)
            if last.strip():
                told = Turn("assistant", (last[:LONGEST_ANSWER],)), Turn("user", (words,))
                said = (*opening, *told)
            else:  # an API may refuse an empty turn
                said = (*opening[:-1], Turn("user", (*opening[-1].parts, words)))
    raise AnswerError(f"{fault}; {ASKS} replies could not be read, the last: {last[:200]!r}")


def bare(text: str) -> str:
    """A reply, or a part of it, without a chat template's tokens and a code fence around it.

    Raises:
        AnswerError: longer than `LONGEST_ANSWER`.
    """
    if len(text) > LONGEST_ANSWER:
        raise AnswerError(f"got {len(text)} characters, expected at most {LONGEST_ANSWER}")
    text = _TOKEN.sub("", text).strip()
    if len(text) > 5 and text.startswith("```") and text.endswith("```"):
        text = re.sub(r"^[a-z]+\b", "", text[3:-3].strip()).strip()
    return text
