"""A chain of clips that the teacher plans and verifies, in the manner of CollabVR (2605.08735).

The teacher looks at the current frame and writes the prompt of the next clip; the reasoner makes
it; the teacher accepts the clip or writes a better prompt. An accepted clip's last frame is the
first of the next. The chain is resampled to the frames of one clip, as every method delivers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vlmteach.asking import Answer, ask, json_objects, last_object, quote
from vlmteach.frames import uniform_frames
from vlmteach.methods.base import Resources, Work
from vlmteach.methods.replies import PROMPT_TOKENS, RULES, checked_prompt
from vlmteach.methods.sheets import SHEET_FRAMES, contact_sheet, image_of
from vlmteach.record import write_json
from vlmteach.types import Decision

if TYPE_CHECKING:
    from PIL.Image import Image

_TASK = """\
A task is carried out in a chain of short videos; each starts from the last frame of the one \
before. The task, as a JSON string:
{task}
"""

_PLAN = (
    _TASK
    + """\
Prompts of the videos made so far, as a JSON list: {done}
{shown}Write the prompt of the next video, which is number {number} of at most {most}: the one \
next thing that is to happen, with what moves where, and how its last frame looks. The last video \
must finish the task.
{rules}Reply with JSON only: {{"prompt": "..."}}{or_done}"""
)

_SHOWN = "The image is the frame that the next video starts from.\n"
_OR_DONE = ', or {"done": true} if the image shows the task finished'

_VERIFY = (
    _TASK
    + """\
The image shows {frames} frames of one of the videos, in time from left to right. Its prompt, as a \
JSON string:
{prompt}
Did what the prompt asks for happen? Accept the video if it did, also where the task itself is not \
finished yet. Reject it if the wrong thing moved, the wrong way was taken, or objects broke, \
vanished or appeared; then write a better prompt for another try from the same first frame.
{rules}Reply with JSON only: {{"accept": true}} or {{"accept": false, "prompt": "..."}}"""
)

End = Literal["done", "segments", "rejected", "no_plan"]


def plan_request(task: str, done: Sequence[str], *, most: int, shown: bool) -> str:
    """The text that asks for the next clip's prompt, or whether the task is done.

    Args:
        task: the instance's prompt.
        done: prompts of the clips so far.
        most: clips in all.
        shown: whether the frame that the next clip starts from stands before the text.
    """
    return _PLAN.format(
        task=json.dumps(task, ensure_ascii=False),
        done=json.dumps(list(done), ensure_ascii=False),
        shown=_SHOWN if shown else "",
        number=len(done) + 1,
        most=most,
        rules=RULES,
        or_done=_OR_DONE if done else "",
    )


def verify_request(task: str, prompt: str, *, frames: int) -> str:
    """The text that asks whether a clip did what its prompt says; its sheet stands before it.

    Args:
        task: the instance's prompt.
        prompt: the clip's.
        frames: on the sheet.
    """
    return _VERIFY.format(
        task=json.dumps(task, ensure_ascii=False),
        frames=frames,
        prompt=json.dumps(prompt, ensure_ascii=False),
        rules=RULES,
    )


@dataclass(frozen=True, slots=True)
class Try:
    """One clip of a segment, and the teacher's verdict."""

    clip: str
    """File in the instance's folder."""
    candidate: int
    """Which of the instance's noises it was made from: clips are counted through."""
    prompt: str
    accepted: bool
    refusal: str | None = None
    """Why the verdict could not be used; the clip is accepted then."""


@dataclass(frozen=True, slots=True)
class Chain:
    """How the chain grew (`vlm_solver.json`)."""

    segments: tuple[tuple[Try, ...], ...]
    end: End
    """`done`: the teacher saw the task finished; `segments`: no more were allowed; `rejected`:
    every try of a segment was; `no_plan`: the teacher wrote no usable plan."""
    refusal: str | None
    """Why the plan could not be used, where it ended the chain."""

    @property
    def fallbacks(self) -> int:
        """Requests that brought no usable text: the plan, and verdicts."""
        verdicts = (a.refusal is not None for tries in self.segments for a in tries)
        return sum(verdicts) + (self.refusal is not None)


def parse_plan(reply: str, *, may_end: bool) -> str:
    """The next clip's prompt in a reply `{"prompt": "..."}`; empty for `{"done": true}`.

    Raises:
        ValueError: it is neither, or the chain may not end here.
    """
    form = '{"prompt": "..."}' + (' or {"done": true}' if may_end else "")
    found = [thing for thing in json_objects(reply) if thing.keys() & {"prompt", "done"}]
    if not found:
        raise ValueError(f"got {quote(reply)}, expected a JSON object {form}")
    if may_end and found[-1].keys() == {"done"} and found[-1]["done"] is True:
        return ""
    if found[-1].keys() != {"prompt"}:
        raise ValueError(f"got {quote(found[-1])}, expected {form}")
    return checked_prompt(found[-1]["prompt"])


def parse_verdict(reply: str) -> str:
    """The better prompt in `{"accept": false, "prompt": "..."}`; empty for `{"accept": true}`.

    Raises:
        ValueError: it is neither.
    """
    form = '{"accept": true} or {"accept": false, "prompt": "..."}'
    thing = last_object(reply, "accept", form)
    if thing["accept"] is True and thing.keys() == {"accept"}:
        return ""
    if thing["accept"] is not False or thing.keys() != {"accept", "prompt"}:
        raise ValueError(f"got {quote(thing)}, expected {form}")
    return checked_prompt(thing["prompt"])


def join(clips: Sequence[Tensor], frames: int) -> Tensor:
    """Clips that start where the one before ends, as one: uint8 [T, H, W, 3].

    The frame two clips share is taken once; then `frames` of all are taken, uniformly, the first
    and the last included. One clip of as many frames is unchanged.
    """
    whole = torch.cat([clips[0], *(clip[1:] for clip in clips[1:])])
    return whole[uniform_frames(len(whole), frames)]


class VLMSolver:
    """Plan, sample, verify; up to `segments` clips of up to `tries` tries each.

    Raises:
        ValueError: the reasoner takes no first frame, so that no clip can follow another.
    """

    name = "vlm_solver"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.settings = resources.config.vlm_solver
        if self.settings.segments > 1 and not resources.models.reasoner.facts.accepts_image:
            raise ValueError(
                "vlm_solver: got a reasoner that makes video from text only, expected one that "
                "takes a first frame, as each clip starts from the last frame of the one before; "
                "take an image-to-video checkpoint, or set vlm_solver.segments to 1"
            )

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        chain, clips = self._chain(work)
        with work.stage("write"):
            work.write_clip(join(clips, work.clip.frames), "clip")
        write_json(work.folder / "vlm_solver.json", chain)
        return Decision(fallbacks=chain.fallbacks)

    def _chain(self, work: Work) -> tuple[Chain, list[Tensor]]:
        """Plans and makes segments until the chain ends; the clips to deliver, at least one."""
        segments: list[tuple[Try, ...]] = []
        kept: list[Tensor] = []
        end: End = "segments"
        refusal = None
        numbers = itertools.count()
        while end == "segments" and len(segments) < self.settings.segments:
            frame = image_of(kept[-1][-1]) if kept else work.instance.first_frame
            plan = self._plan(work, frame, [tries[-1].prompt for tries in segments])
            if plan.value is None:
                end, refusal = "no_plan", plan.refusals[-1]
                if kept:
                    break
                # One clip of the instance's own prompt: who cannot plan cannot verify either.
                name = "segment_1_1"
                kept = [self._sample(work, work.instance.prompt, frame, 0, name)]
                segments = [(Try(f"{name}.mp4", 0, work.instance.prompt, accepted=True),)]
            elif not plan.value:
                end = "done"
            else:
                tries, clip = self._segment(work, plan.value, frame, len(segments) + 1, numbers)
                segments.append(tries)
                if not tries[-1].accepted:
                    end = "rejected"
                    if kept:
                        break
                kept.append(clip)
        return Chain(tuple(segments), end, refusal), kept

    def _segment(
        self, work: Work, prompt: str, frame: Image | None, segment: int, numbers: Iterator[int]
    ) -> tuple[tuple[Try, ...], Tensor]:
        """Tries until the teacher accepts; every try, and the last one's frames."""
        tries: list[Try] = []
        while True:
            candidate, name = next(numbers), f"segment_{segment}_{len(tries) + 1}"
            clip = self._sample(work, prompt, frame, candidate, name)
            verdict = self._verify(work, prompt, clip)
            refusal = verdict.refusals[-1] if verdict.value is None else None
            accepted = not verdict.value
            tries.append(Try(f"{name}.mp4", candidate, prompt, accepted, refusal))
            if accepted or len(tries) == self.settings.tries:
                return tuple(tries), clip
            prompt = verdict.value or prompt

    def _sample(
        self, work: Work, prompt: str, frame: Image | None, candidate: int, name: str
    ) -> Tensor:
        problem = work.pose(prompt=prompt, first_frame=frame)
        with work.stage("sample"):
            return work.sample(work.candidate(problem, candidate), name)

    def _plan(self, work: Work, frame: Image | None, done: list[str]) -> Answer[str]:
        task, most = work.instance.prompt, self.settings.segments
        return ask(
            work,
            plan_request(task, done, most=most, shown=frame is not None),
            [] if frame is None else [frame],
            partial(parse_plan, may_end=bool(done)),
            max_replies=1,
            max_new_tokens=PROMPT_TOKENS,
        )

    def _verify(self, work: Work, prompt: str, clip: Tensor) -> Answer[str]:
        frames = min(SHEET_FRAMES, len(clip))
        return ask(
            work,
            verify_request(work.instance.prompt, prompt, frames=frames),
            [contact_sheet(clip)],
            parse_verdict,
            max_replies=1,
            max_new_tokens=PROMPT_TOKENS,
        )
