"""Plain samples: one (`base`), or the best of N by the teacher's own judgement (`pass_at_n`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from vlmteach import micro_fit
from vlmteach.methods.base import Bench, begin
from vlmteach.record import write_json
from vlmteach.reward import instance_loss
from vlmteach.types import Instance, Outcome, Reading


class BaseMethod:
    """One sample of the reasoner as it is, from the instance's own noise."""

    name = "base"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Callable[[Reading], None],
        logger: Logger | None,
    ) -> Outcome:
        with begin(self.bench, instance, folder) as work, self.bench.models.lora.disabled():
            problem = work.pose(None)
            with work.stage("sample"):
                work.sample(problem, "clip")
        return work.outcome(self.name)


class PassAtN:
    """Best-of-N, selector `teacher`: the same queries and loss as the micro-fit has, on N clips.

    The teacher watches the delivered clips (full sampling, standard VAE, uint8). Candidate 0 is the
    base's clip. All candidates are kept, so that another selector can be applied afterwards.
    """

    name = "pass_at_n"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Callable[[Reading], None],
        logger: Logger | None,
    ) -> Outcome:
        count = self.bench.config.pass_at_n.candidates
        with begin(self.bench, instance, folder) as work, self.bench.models.lora.disabled():
            queries = work.queries()
            problem = work.pose(queries)
            readings = []
            for number in range(count):
                with work.stage("sample"):
                    frames = work.sample(work.candidate(problem, number), f"candidate_{number}")
                with work.stage("judge"):
                    readings.append(self._read(problem, frames, number))
                work.teacher_calls += 1
                tell(readings[-1])
            chosen = min(range(count), key=lambda number: readings[number].loss)
            shutil.copyfile(folder / f"candidate_{chosen}.mp4", folder / "clip.mp4")
            write_json(folder / "candidates.json", {"picked": chosen, "candidates": readings})
        return work.outcome(
            self.name,
            query_source=queries.source,
            candidate=chosen,
            first_loss=readings[0].loss,
            kept_loss=readings[chosen].loss,
        )

    @torch.no_grad()
    def _read(self, problem: micro_fit.Problem, frames: Tensor, number: int) -> Reading:
        """What the teacher says of a delivered clip, uint8 [T, H, W, 3]."""
        watched = frames[list(problem.frames)].permute(0, 3, 1, 2).float() / 255
        log_p_yes = self.bench.models.teacher.log_p_yes(watched, problem.questions)
        loss = instance_loss(log_p_yes, problem.roles, self.bench.config.fit.goal_weight)
        return Reading(number, loss.item(), tuple(log_p_yes.double().exp().tolist()))
