"""Plain samples: one (`base`), or the best of N, picked by one of three (`pass_at_n`)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vlmteach.asking import Answer, ask
from vlmteach.methods.base import Resources, Work
from vlmteach.methods.prompt_rewrite import rewrite
from vlmteach.methods.replies import VERDICT_TOKENS, parse_pick
from vlmteach.methods.sheets import SHEET_FRAMES, contact_sheet
from vlmteach.record import write_json
from vlmteach.types import Decision, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

_PICK = """\
A video model was to carry out a task. The task, as a JSON string:
{task}
It made {count} videos. Each image shows one of them, in order: {frames} frames, in time from left \
to right. Which video carries out the task best? Look at the last frame first, then at the way \
there: nothing may break, vanish or appear.
Reply with JSON only: {{"best": n}}, n being the number of the image from 1 to {count}."""


def pick_request(task: str, *, count: int, frames: int) -> str:
    """The text that asks which video is best; a contact sheet of each stands before it.

    Args:
        task: the instance's prompt.
        count: videos.
        frames: on each sheet.
    """
    return _PICK.format(task=json.dumps(task, ensure_ascii=False), count=count, frames=frames)


class BaseMethod:
    """One sample of the reasoner as it is, from the instance's own noise."""

    name = "base"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        problem = work.pose()
        with work.stage("sample"):
            work.sample(problem, "clip")
        return Decision()


class PassAtN:
    """Best-of-N by one of three selectors; all candidates are kept, and candidate 0 is the base's,
    or `prompt_rewrite`'s where the prompt is rewritten.

    `teacher` has the same queries and loss as the micro-fit, on the delivered clips (full sampling,
    standard VAE, uint8). `vlm_pick` sees a contact sheet of each. `oracle` picks nothing here:
    candidate 0 is delivered, and whoever knows the score picks among the files.
    """

    name = "pass_at_n"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        settings, folder = self.resources.config.pass_at_n, work.folder
        decision = Decision(selector=settings.selector)
        record: dict[str, Any] = {"selector": settings.selector, "picked": 0}
        readings: list[Reading] = []
        sheets: list[Image] = []
        queries = work.queries() if settings.selector == "teacher" else None
        written = rewrite(work) if settings.rewrite_prompt else None
        problem = work.pose(prompt=None if written is None else written.prompt)
        if written is not None:
            decision = replace(decision, fallbacks=int(written.source == "instance"))
        for number in range(settings.candidates):
            with work.stage("sample"):
                frames = work.sample(work.candidate(problem, number), f"candidate_{number}")
            if queries is not None:
                readings.append(work.read(queries, frames, number))
                work.tell(readings[-1])
            elif settings.selector == "vlm_pick":
                sheets.append(contact_sheet(frames))
        if queries is not None:
            chosen = min(range(len(readings)), key=lambda number: readings[number].loss)
            record |= {"picked": chosen, "candidates": readings}
            decision = replace(
                decision,
                query_source=queries.source,
                first_loss=readings[0].loss,
                kept_loss=readings[chosen].loss,
            )
        elif len(sheets) > 1:
            pick = self._pick(work, sheets)
            record |= {"picked": pick.value or 0, "refusals": pick.refusals}
            decision = replace(decision, fallbacks=decision.fallbacks + len(pick.refusals))
        work.finish_clips()
        shutil.copyfile(folder / f"candidate_{record['picked']}.mp4", folder / "clip.mp4")
        write_json(folder / "candidates.json", record)
        return replace(decision, candidate=record["picked"])

    def _pick(self, work: Work, sheets: list[Image]) -> Answer[int]:
        frames = min(SHEET_FRAMES, work.clip.frames)
        return ask(
            work,
            pick_request(work.instance.prompt, count=len(sheets), frames=frames),
            sheets,
            partial(parse_pick, count=len(sheets)),
            max_replies=1,
            max_new_tokens=VERDICT_TOKENS,
        )
