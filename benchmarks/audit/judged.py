"""Labels from a judge model, which is never of the teacher's family."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.audit.cases import LABELS, Case, Label
from benchmarks.judges import Judge, Turn, UnusableJudgeError
from benchmarks.judges.asking import AnswerError, ask, bare
from vlmteach.asking import json_objects

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES = 8
"""Frames of the clip that the judge sees, first and last included."""
LONGEST_SIDE = 512
"""Pixels."""

_REQUEST = """\
A video model was to carry out this task (a JSON string): {prompt}
The images are {frames} frames of its video, in order. The video has been found wrong.
While it was made, a viewer answered these yes/no questions about it; behind each stands the \
probability that the viewer gave to yes:
{queries}
Say what let the wrong video pass:
"query": some question does not ask what the task demands, or none of them asks after what is \
wrong in the video;
"perception": the questions are right, and the viewer's answer to one of them is not what the \
video shows;
"neither": the questions are right and so are the answers; the video just did not get better.
Reply with JSON only: {{"label": "query" or "perception" or "neither", "why": "one sentence"}}"""
_AGAIN = (
    "That could not be read: {fault}. Reply with the JSON object and nothing else.",
    'That could not be read: {fault}. Reply with {{"label": "..."}} alone.',
)


def request(case: Case, frames: Sequence[Image]) -> Turn:
    """What the judge is shown. Texts of the instance enter as JSON strings."""
    p_yes = case.p_yes or (None,) * len(case.queries)
    lines = [
        f"- {json.dumps(query.text, ensure_ascii=False)} " + ("?" if p is None else f"{p:.2f}")
        for query, p in zip(case.queries, p_yes, strict=True)
    ]
    text = _REQUEST.format(
        prompt=json.dumps(case.prompt, ensure_ascii=False),
        frames=len(frames),
        queries="\n".join(lines),
    )
    return Turn("user", (text, *frames))


def parse(reply: str) -> tuple[Label, str]:
    """(label, reason) of a reply: its last JSON object with a label.

    Raises:
        AnswerError: there is none.
    """
    for said in reversed(json_objects(bare(reply))):
        word = str(said.get("label")).strip().lower()
        for label in LABELS:
            if word == label:
                return label, str(said.get("why", ""))[:400]
    raise AnswerError(f"got no JSON object with one of {LABELS}")


def label(cases: Sequence[Case], judge: Judge, keep: Callable[[], None]) -> list[str]:
    """Asks the judge for every label that is missing.

    Args:
        cases: all of them, with their prompts.
        judge: of another family than the teacher.
        keep: called after each label, to save it.

    Returns:
        What went wrong, one line per case that is still without a label.

    Raises:
        UnusableJudgeError: no case will get a reply.
    """
    faults = []
    for number, case in enumerate(cases, 1):
        if case.label is not None:
            continue
        try:
            answer = ask(judge, (request(case, frames_of(case.clip)),), parse, _AGAIN)
        except UnusableJudgeError:
            raise
        except (ValueError, OSError) as error:  # no reply, none that can be read, or no clip
            faults.append(f"case {number}: {error}")
            continue
        (case.label, case.why), case.by = answer.value, judge.name
        keep()
    return faults


def frames_of(clip: str) -> list[Image]:
    """The frames a judge sees of a clip, RGB."""
    from PIL import Image

    from vlmteach.frames import uniform_frames
    from vlmteach.video import read_video

    frames, _ = read_video(clip)
    images = []
    for index in uniform_frames(len(frames), FRAMES):
        image = Image.fromarray(frames[index].numpy())
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        images.append(image)
    return images
