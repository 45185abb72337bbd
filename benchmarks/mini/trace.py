"""What the rules say along a fit: of what the teacher is shown, and of what would be delivered.

    python -m vlmteach.fit --instances tasks.tar --out runs/traced \
        --callbacks benchmarks.mini.trace.RuleTrace

A callback that changes nothing: at every reading it scores three videos of the same weights, the
watched prediction as the surrogate decodes it, the same prediction through the standard VAE, and
the clip that full sampling would deliver. `benchmarks.mini.diagnose` reads what it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from benchmarks.audit.rules import task_of
from benchmarks.mini.beyond import instance_folder
from vlmteach.mini import world
from vlmteach.problem import sample
from vlmteach.record import write_json

if TYPE_CHECKING:
    from torch import Tensor

TRACE = "trace.json"
SHOWN, PREDICTED, DELIVERED = "shown", "predicted", "delivered"
VIEWS = (SHOWN, PREDICTED, DELIVERED)
"""Surrogate's frames, the same prediction through the VAE, the clip of full sampling."""


class RuleTrace(pl.Callback):
    """Leaves `trace.json` in the instance's folder: a list of readings, each with the loss, the
    teacher's P("Yes"), the gradient's norm, and goal, parts and strict of each of `VIEWS`."""

    def __init__(self) -> None:
        self.readings: list[dict[str, Any]] = []
        self.task: world.Task | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Finds the task by the instance's key.

        Raises:
            ValueError: no task of the miniature, or a fit that does not watch all frames.
        """
        self.task = task_of(pl_module.problem.key)
        if self.task is None or len(pl_module.problem.frames) != world.FRAMES:
            raise ValueError(
                f"RuleTrace: got the instance {pl_module.problem.key!r} with "
                f"{len(pl_module.problem.frames)} frames watched, expected a task of the miniature "
                "and all of its frames; take the preset mini"
            )

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        """Scores what this reading's weights make."""
        with torch.no_grad():
            reasoner = pl_module.models.reasoner
            views = {
                SHOWN: pl_module.watched,
                PREDICTED: reasoner.decode(pl_module.prediction.z0),
                DELIVERED: sample(pl_module.models, pl_module.problem),
            }
        reading = pl_module.reading
        self.readings.append(
            {
                "step": reading.step,
                "loss": reading.loss,
                "p_yes": reading.p_yes,
                **{view: self._scored(frames) for view, frames in views.items()},
            }
        )

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Adds the gradient's norm, known by now, to the latest reading; the last one has none."""
        if not trainer.should_stop:
            self.readings[-1]["gradient_norm"] = pl_module.reading.gradient_norm

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Writes the trace."""
        write_json(instance_folder(trainer) / TRACE, self.readings)

    def _scored(self, frames: Tensor) -> dict[str, Any]:
        """Rules of a video [T, 3, H, W] in [0, 1]."""
        assert self.task is not None
        scored = world.score(self.task, frames.permute(0, 2, 3, 1).float().cpu().numpy())
        return {
            "goal": scored.goal,
            "parts": scored.process_parts,
            "overall": scored.overall,
            "strict": scored.strict,
        }
