"""The closed vocabulary of prompts and queries."""

from __future__ import annotations

import re

from vlmteach.mini.world.draw import COLOURS, SHAPES

_PROMPTS = """
move the straight to frame around wall of same shape continue row drop that floats paint draw a odd
one largest complete mirror image fill tank with water mark mix two lights in grow size turn bar
upright flat
"""
_QUERIES = """
by the end of video is does do stay whole move step on straight line avoid to at floor keep its
spread drawn only complete rest white other shapes squares same level rise full light lights place
in frame grow turn
"""
_NAMES = "diamond"
_MARKS = (".", ",", "?")
_ANSWERS = ("yes", "no")


def vocabulary() -> tuple[str, ...]:
    """Every token that prompts, queries and their answers are made of, sorted: lower-case words
    and the marks . , ?"""
    words = {*_PROMPTS.split(), *_QUERIES.split(), _NAMES, *COLOURS, *SHAPES, *_ANSWERS}
    return tuple(sorted({*words, *_MARKS}))


def tokens(text: str) -> list[str]:
    """A text as lower-case words and marks, in order."""
    return re.findall(r"[a-z]+|[^a-z\s]", text.lower())


def end(question: str) -> str:
    """A goal query: the question asked of the last frame."""
    return f"By the end of the video, {question}?"
