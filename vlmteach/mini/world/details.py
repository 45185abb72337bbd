"""Prompts with more detail: what may be said of a task beyond its bare prompt.

A detail asks for one thing that a bad execution gets wrong, or names what acts where the bare
prompt does not. None of it is needed to know the task: who writes it has to look at the first frame
or to know what videos get wrong.
"""

from __future__ import annotations

from collections.abc import Collection

from vlmteach.mini.world.scene import Task
from vlmteach.mini.world.tasks import family
from vlmteach.mini.world.words import tokens, vocabulary

WHICH = "which"
"""The detail that names the acting colour."""
SENTENCES = {
    "extent": "Go all the way.",
    "late": "Go step by step.",
    "drift": "Do not stray.",
    "duplicate": "Leave no copy.",
    "fade": "Keep its colour.",
    "shrink": "Keep its size.",
    "disturb": "Keep the rest.",
}
"""Flaw -> the sentence that asks for its absence, in the order in which a prompt has them."""


def details(task: Task) -> dict[str, str]:
    """All details of a task, by name: `WHICH` where its prompt does not name what acts, and the
    flaws that its family has. In the order in which a prompt has them."""
    known = family(task.family).flaws
    said = {name: text for name, text in SENTENCES.items() if name in known}
    colour = task.cue[0]
    return said if colour in tokens(task.prompt) else {WHICH: f"It is {colour}."} | said


def detailed(task: Task, names: Collection[str]) -> str:
    """The task's prompt with some of its details; the bare prompt for none.

    Raises:
        ValueError: a detail that the task does not have.
    """
    known = details(task)
    if unknown := set(names) - known.keys():
        raise ValueError(
            f"details: got {', '.join(sorted(unknown))} for {task.key}, expected some of "
            f"{', '.join(known)}; leave the others out"
        )
    return " ".join([task.prompt, *(text for name, text in known.items() if name in names)])


def detail_words() -> tuple[str, ...]:
    """The words of details that no bare prompt and no query has, sorted: see `vocabulary`."""
    said = {word for text in [*SENTENCES.values(), "It is"] for word in tokens(text)}
    return tuple(sorted(said - set(vocabulary())))
