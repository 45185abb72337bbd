"""Prompt rewriting: the teacher rewrites the prompt, and the reasoner samples once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from vlmteach.asking import ask
from vlmteach.methods.base import Resources, Work
from vlmteach.methods.replies import PROMPT_TOKENS, RULES, parse_prompt
from vlmteach.record import write_json
from vlmteach.types import Decision

_REQUEST = """\
A video model will be asked to carry out a task{start}. It draws well and reasons badly. The task, \
as a JSON string:
{prompt}
Solve the task yourself, then write the prompt that the video model needs: what moves, along which \
way and to which place, how the last frame looks, and what stays as it is. Keep to the task and to \
the objects that are there.
{rules}Reply with JSON only: {{"prompt": "..."}}"""

_START = ", starting from this image"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The prompt that is used, and how it came about (`prompt.json`)."""

    prompt: str
    original: str
    source: Literal["teacher", "instance"]
    """`instance`: every reply was refused, and the prompt is the original."""
    replies: int
    refusals: tuple[str, ...]


def request(prompt: str, *, shown: bool) -> str:
    """The text that asks for a better prompt.

    Args:
        prompt: the task's.
        shown: whether its first frame stands before the text.
    """
    return _REQUEST.format(
        start=_START if shown else "",
        prompt=json.dumps(prompt, ensure_ascii=False),
        rules=RULES,
    )


def rewrite(work: Work) -> Rewrite:
    """Has the teacher rewrite the instance's prompt, and records it."""
    instance = work.instance
    answer = ask(
        work,
        request(instance.prompt, shown=instance.first_frame is not None),
        [] if instance.first_frame is None else [instance.first_frame],
        parse_prompt,
        max_replies=work.resources.config.prompt_rewrite.max_replies,
        max_new_tokens=PROMPT_TOKENS,
    )
    written = Rewrite(
        prompt=instance.prompt if answer.value is None else answer.value,
        original=instance.prompt,
        source="instance" if answer.value is None else "teacher",
        replies=answer.replies,
        refusals=answer.refusals,
    )
    write_json(work.folder / "prompt.json", written)
    return written


class PromptRewrite:
    """One sample of the rewritten prompt, from the instance's own noise."""

    name = "prompt_rewrite"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        written = rewrite(work)
        problem = work.pose(prompt=written.prompt)
        with work.stage("sample"):
            work.sample(problem, "clip")
        return Decision(fallbacks=int(written.source == "instance"))
