"""Lessons: a method's very request, its images, and the reply that the speaker is to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as images

from benchmarks.mini.train.speaking import language
from benchmarks.mini.train.speaking.clips import Clip, Clips
from vlmteach.asking import with_refusals
from vlmteach.methods import pass_at_n, prompt_rewrite, video_tpo, vlm_solver
from vlmteach.methods.replies import parse_prompt
from vlmteach.methods.sheets import SHEET_FRAMES, contact_sheet, first_and_last
from vlmteach.mini.world import STRICT_GOAL, Task, detailed, details

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL.Image import Image

SEGMENTS = (1, 2, 3, 4)
"""Clips in all that a plan may be of."""
_CLEARLY = 0.02
"""Overall score by which the best of some clips is better than any other."""
_REFUSED = 0.04
"""Share of requests for a prompt that tell of an earlier reply."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One request and its right reply."""

    request: str
    images: tuple[Image, ...]
    reply: str


def some_details(task: Task, rng: Generator) -> list[str]:
    """Some of a task's details, often none or all."""
    known, chance = list(details(task)), rng.random()
    if chance < 0.35:
        return []
    return known if chance < 0.6 else [name for name in known if rng.random() < 0.5]


def rewriting(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """`prompt_rewrite`: all details, whatever the prompt has already."""
    return [_rewriting(clips.task(rng), rng) for _ in range(count)]


def _rewriting(task: Task, rng: Generator) -> Lesson:
    names = [] if rng.random() < 0.7 else some_details(task, rng)
    request = prompt_rewrite.request(detailed(task, names), shown=True)
    return rewrite_lesson(_retold(request, task, rng), task)


def rewrite_lesson(request: str, task: Task) -> Lesson:
    """A request about a task's first frame, answered by all details."""
    return Lesson(request, (_picture(task.first_frame),), language.prompted(whole(task)))


def whole(task: Task) -> str:
    """The prompt with all details."""
    return detailed(task, details(task))


def analysing(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """VideoTPO's textual loss: what two clips get wrong."""
    made = []
    for _ in range(count):
        task, two = clips.some(rng, 2)
        made.append(analysis_lesson(task, some_details(task, rng), two))
    return made


def analysis_lesson(task: Task, names: Sequence[str], two: Sequence[Clip]) -> Lesson:
    """Two clips of the prompt with these details."""
    sheet = first_and_last([torch.from_numpy(clip.frames) for clip in two], video_tpo.SIDE)
    request = video_tpo.loss_request(task.prompt, detailed(task, names))
    return Lesson(request, (sheet,), language.analysis(task, [clip.faults for clip in two]))


def advising(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """VideoTPO's textual gradient: which details the faults call for."""
    made = []
    for _ in range(count):
        task = clips.task(rng)
        names = some_details(task, rng)
        told = _told(task, rng)
        loss = language.analysis(task, told)
        wanted = language.advised(task, names, told[0] | told[1])
        request = video_tpo.gradient_request(task.prompt, detailed(task, names), loss)
        made.append(Lesson(request, (), language.advice(task, wanted)))
    return made


def improving(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """VideoTPO's rewriting: the prompt as the advice says."""
    made = []
    for _ in range(count):
        task = clips.task(rng)
        names, told = some_details(task, rng), _told(task, rng)
        wanted = language.advised(task, names, told[0] | told[1])
        prompt, advice = detailed(task, names), language.advice(task, wanted)
        request = _retold(video_tpo.rewrite_request(task.prompt, prompt, advice), task, rng)
        made.append(Lesson(request, (), language.prompted(detailed(task, [*names, *wanted]))))
    return made


def picking(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """`vlm_pick`: the best of two to five clips, as many in every lesson of a batch."""
    shown = int(rng.choice((2, 3, 4, 5), p=(0.25, 0.25, 0.15, 0.35)))
    made: list[Lesson] = []
    while len(made) < count:
        task, some = clips.some(rng, shown)
        if clear(some):
            made.append(pick_lesson(task, some))
    return made


def clear(some: Sequence[Clip]) -> bool:
    """Whether one clip is clearly the best."""
    ranked = sorted(clip.scored.overall for clip in some)
    return ranked[-1] - ranked[-2] >= _CLEARLY


def pick_lesson(task: Task, some: Sequence[Clip]) -> Lesson:
    """Clips, of which the rules' best is to be picked."""
    best = 1 + int(np.argmax([clip.scored.overall for clip in some]))
    request = pass_at_n.pick_request(task.prompt, count=len(some), frames=SHEET_FRAMES)
    return Lesson(request, tuple(_sheet(clip) for clip in some), language.picked(best))


def planning(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """`vlm_solver`'s plan: the next prompt, or that the task is done."""
    made = []
    for _ in range(count):
        most = SEGMENTS[int(rng.integers(len(SEGMENTS)))]
        done = int(rng.integers(1, most)) if most > 1 and rng.random() < 0.7 else 0
        if done:
            task, (clip,) = clips.some(rng, 1)
            made.append(plan_lesson(task, clip, done, most))
        else:
            task = clips.task(rng)
            request = vlm_solver.plan_request(task.prompt, [], most=most, shown=True)
            made.append(rewrite_lesson(request, task))
    return made


def plan_lesson(task: Task, clip: Clip, done: int, most: int) -> Lesson:
    """What comes after a clip, the last of those done."""
    request = vlm_solver.plan_request(task.prompt, [whole(task)] * done, most=most, shown=True)
    finished = clip.scored.goal >= STRICT_GOAL
    reply = language.DONE if finished else language.prompted(whole(task))
    return Lesson(request, (_picture(clip.frames[-1]),), reply)


def verifying(rng: Generator, clips: Clips, count: int) -> list[Lesson]:
    """`vlm_solver`'s verdict on a clip, with all details as the better prompt."""
    made = []
    for _ in range(count):
        task, (clip,) = clips.some(rng, 1)
        names = some_details(task, rng) if rng.random() < 0.4 else list(details(task))
        made.append(verdict_lesson(task, names, clip))
    return made


def verdict_lesson(task: Task, names: Sequence[str], clip: Clip) -> Lesson:
    """A clip of the prompt with these details."""
    prompt = detailed(task, names)
    request = vlm_solver.verify_request(task.prompt, prompt, frames=SHEET_FRAMES)
    reply = language.ACCEPTED if clip.accepted else language.rejected(whole(task))
    return Lesson(request, (_sheet(clip),), reply)


LESSONS: dict[str, Callable[[Generator, Clips, int], list[Lesson]]] = {
    "rewrite": rewriting,
    "analyse": analysing,
    "advise": advising,
    "improve": improving,
    "pick": picking,
    "plan": planning,
    "verify": verifying,
}
"""Kind -> so many lessons of it, whose images are equally many and of equal size."""


def _told(task: Task, rng: Generator) -> list[set[str]]:
    """Faults of two videos, often the same."""
    known = [name for name in details(task) if name in language.FAULTS]
    share = float(rng.random())
    first = {name for name in known if rng.random() < share}
    other = {name for name in known if rng.random() < share}
    return [first, first if rng.random() < 0.5 else other]


def _retold(request: str, task: Task, rng: Generator) -> str:
    """A request for a prompt, now and then with a refusal of an earlier reply."""
    if rng.random() >= _REFUSED:
        return request
    try:
        parse_prompt(task.prompt)
    except ValueError as refusal:
        return with_refusals(request, [str(refusal)])
    raise AssertionError("a bare prompt is no JSON object")


def _sheet(clip: Clip) -> Image:
    return contact_sheet(torch.from_numpy(clip.frames))


def _picture(frame: np.ndarray) -> Image:
    return images.fromarray(frame)
