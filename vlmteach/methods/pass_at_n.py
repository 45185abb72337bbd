"""Plain samples: one (`base`), or the best of N, picked by one of three (`pass_at_n`)."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from vlmteach.methods.asking import VERDICT_TOKENS, Answer, ask, parse_pick
from vlmteach.methods.base import Resources, Tell, Work, begin
from vlmteach.methods.sheets import SHEET_FRAMES, contact_sheet
from vlmteach.record import write_json
from vlmteach.types import Instance, Outcome, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

_PICK = """\
A video model was to carry out a task. The task, as a JSON string:
{task}
It made {count} videos. Each image shows one of them, in order: {frames} frames, in time from left \
to right. Which video carries out the task best? Look at the last frame first, then at the way \
there: nothing may break, vanish or appear.
Reply with JSON only: {{"best": n}}, n being the number of the image from 1 to {count}."""


class BaseMethod:
    """One sample of the reasoner as it is, from the instance's own noise."""

    name = "base"

    def __init__(self, bench: Resources) -> None:
        self.bench = bench

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Tell,
        logger: Logger | None,
    ) -> Outcome:
        with begin(self.bench, instance, folder, tell) as work, self.bench.models.lora.disabled():
            problem = work.pose(None)
            with work.stage("sample"):
                work.sample(problem, "clip")
        return work.outcome(self.name)


class PassAtN:
    """Best-of-N by one of three selectors; all candidates are kept, and candidate 0 is the base's.

    `teacher` has the same queries and loss as the micro-fit, on the delivered clips (full sampling,
    standard VAE, uint8). `vlm_pick` sees a contact sheet of each. `oracle` picks nothing here:
    candidate 0 is delivered, and whoever knows the score picks among the files.
    """

    name = "pass_at_n"

    def __init__(self, bench: Resources) -> None:
        self.bench = bench

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Tell,
        logger: Logger | None,
    ) -> Outcome:
        settings = self.bench.config.pass_at_n
        told: dict[str, Any] = {}
        record: dict[str, Any] = {"selector": settings.selector, "picked": 0}
        readings: list[Reading] = []
        sheets: list[Image] = []
        with begin(self.bench, instance, folder, tell) as work, self.bench.models.lora.disabled():
            queries = work.queries() if settings.selector == "teacher" else None
            problem = work.pose(queries)
            for number in range(settings.candidates):
                with work.stage("sample"):
                    frames = work.sample(work.candidate(problem, number), f"candidate_{number}")
                if settings.selector == "teacher":
                    readings.append(work.read(problem, frames, number))
                    tell(readings[-1])
                elif settings.selector == "vlm_pick":
                    sheets.append(contact_sheet(frames))
            if queries is not None:
                chosen = min(range(len(readings)), key=lambda number: readings[number].loss)
                record |= {"picked": chosen, "candidates": readings}
                told = {
                    "query_source": queries.source,
                    "first_loss": readings[0].loss,
                    "kept_loss": readings[chosen].loss,
                }
            elif len(sheets) > 1:
                pick = self._pick(work, sheets)
                record |= {"picked": pick.value or 0, "refusals": pick.refusals}
                told = {"fallbacks": len(pick.refusals)}
            picked = record["picked"]
            shutil.copyfile(folder / f"candidate_{picked}.mp4", folder / "clip.mp4")
            write_json(folder / "candidates.json", record)
        return work.outcome(self.name, candidate=picked, selector=settings.selector, **told)

    def _pick(self, work: Work, sheets: list[Image]) -> Answer[int]:
        request = _PICK.format(
            task=json.dumps(work.instance.prompt, ensure_ascii=False),
            count=len(sheets),
            frames=min(SHEET_FRAMES, work.clip.frames),
        )
        return ask(
            work,
            request,
            sheets,
            partial(parse_pick, count=len(sheets)),
            max_replies=1,
            max_new_tokens=VERDICT_TOKENS,
        )
