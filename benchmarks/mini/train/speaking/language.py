"""The closed language of the speaker's replies.

An analysis has a sentence per fault, advice repeats the sentences of the prompt that ask for the
faults' absence (`vlmteach.mini.world.details`), and a prompt is the task's with such sentences.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from vlmteach.mini.world import Task, details
from vlmteach.mini.world.details import WHICH

FAULTS = {
    "extent": "It stops short.",
    "late": "It jumps.",
    "drift": "It strays.",
    "duplicate": "It leaves a copy.",
    "fade": "It loses its colour.",
    "shrink": "It loses its size.",
    "disturb": "The rest changes.",
}
"""Flaw -> what an analysis says of a video that has it, in the order in which it says so."""
RIGHT = "All is right."
VIDEOS = ("First video:", "Second video:")
ADD = "Add:"
KEEP = "Keep the prompt."
DONE = '{"done": true}'
ACCEPTED = '{"accept": true}'


def prompted(text: str) -> str:
    """The reply with a prompt."""
    return json.dumps({"prompt": text})


def rejected(text: str) -> str:
    """The verdict against a video, with a better prompt."""
    return json.dumps({"accept": False, "prompt": text})


def picked(best: int) -> str:
    """The reply that picks a video, counted from 1."""
    return json.dumps({"best": best})


def analysis(task: Task, faults: Sequence[Collection[str]]) -> str:
    """What two videos of a task get wrong; what acts is named where the task does not name it.

    Args:
        task: what they were to show.
        faults: flaws of each.
    """
    known = details(task)
    said = [known[WHICH]] if WHICH in known else []
    for video, found in zip(VIDEOS, faults, strict=True):
        said += [video, *([text for name, text in FAULTS.items() if name in found] or [RIGHT])]
    return " ".join(said)


def advised(task: Task, names: Collection[str], faults: Collection[str]) -> list[str]:
    """The details that the faults call for and the prompt has not, in a prompt's order.

    Args:
        task: the prompt's.
        names: details that the prompt has.
        faults: flaws of any of its videos; without any, nothing is called for.
    """
    if not faults:
        return []
    wanted = {WHICH, *faults} - set(names)
    return [name for name in details(task) if name in wanted]


def advice(task: Task, names: Collection[str]) -> str:
    """Advice to add some details to the prompt."""
    known = details(task)
    return " ".join([ADD, *(known[name] for name in known if name in names)]) if names else KEEP
