"""The instance every measurement is made on, and how a measurement reads its preset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vlmteach.config import Config
    from vlmteach.micro_fit import MicroFit
    from vlmteach.models import Models
    from vlmteach.problem import Problem
    from vlmteach.reasoners.base import Condition
    from vlmteach.reward import Watched
    from vlmteach.types import ClipSpec, Role

PROMPT = "Move the yellow ball along the corridor until it lies on the red square."
QUERIES = (
    "Is the yellow ball on the red square at the end of the video?",
    "Does the yellow ball keep its shape and colour throughout the video?",
    "Does the yellow ball move smoothly, without jumping from place to place?",
    "Do the walls of the corridor stay where they are throughout the video?",
)
ROLES: tuple[Role, ...] = ("goal", "process", "process", "process")
"""As many queries as the method allows."""


def read_command(cli: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[Any, Config]:
    """A measurement's own options and its config; all options of `vlmteach.fit` are understood.

    Raises:
        ValueError: for a preset or option that does not exist.
    """
    from vlmteach.options import read_config

    own, others = cli.parse_known_args(argv)
    return own, read_config(["--config", own.config, *others])


def problem_of(models: Models, config: Config, condition: Condition | None = None) -> Problem:
    """A made-up instance ready for the models: random text embedding, first latent and noise.

    Args:
        condition: of another problem of the same reasoner and clip.
    """
    from vlmteach.frames import watched_frames
    from vlmteach.plan.clips import clip_of_config
    from vlmteach.problem import Problem
    from vlmteach.rollout import draw_noise

    ladder, device = config.reasoner.ladder, models.reasoner.device
    clip = clip_of_config(config, models)
    shape = models.reasoner.latent_shape(clip)
    shown = (clip.frames, config.teacher.frames, clip.height, clip.width)
    frames = watched_frames(models.teacher, *shown)
    return Problem(
        clip=clip,
        condition=condition or _condition(models, config, clip),
        seed=0,
        key="benchmark",
        noise=draw_noise(shape, len(ladder), seed=0, key="benchmark", device=device),
        ladder=ladder,
        frames=tuple(frames),
    )


def _condition(models: Models, config: Config, clip: ClipSpec) -> Condition:
    from benchmarks.speed.full_size import encoded, random_condition
    from vlmteach.plan.counted import META, hollow_models

    device = models.reasoner.device
    if device == META:
        return encoded(models.reasoner, clip)
    return random_condition(encoded(hollow_models(config).reasoner, clip), device)


def watched_of(problem: Problem, device: torch.device) -> Watched:
    """What the rewards are told of the made-up instance."""
    from vlmteach.reward import Watched
    from vlmteach.types import Query

    return Watched(
        key=problem.key,
        prompt=PROMPT,
        first_frame=None,
        queries=tuple(map(Query, QUERIES, ROLES)),
        times=problem.times,
        height=problem.clip.height,
        width=problem.clip.width,
        device=device,
        base=_no_base,
    )


def _no_base() -> torch.Tensor:
    raise AssertionError("the presets that are measured weigh `keep` with 0")


def micro_fit_of(
    models: Models, config: Config, problem: Problem, *, gradient: Any = None
) -> MicroFit:
    """The micro-fit that a preset makes of a problem, with the teacher's reward alone.

    Args:
        gradient: instead of the preset's `fit.gradient`.
    """
    from vlmteach.methods.micro_fit import Makers, fit_of
    from vlmteach.reward import TEACHER, Objective, TeacherReward, Term

    mode = config.fit.gradient if gradient is None else gradient
    config = replace(config, fit=replace(config.fit, gradient=mode))
    watched = watched_of(problem, models.reasoner.device)
    term = Term(TEACHER, TeacherReward(models.teacher), 1.0)
    objective = Objective([term], watched, config.fit.goal_weight)
    return fit_of(models, problem, objective, config, Makers.of(config))


def questions_of(models: Models, problem: Problem) -> Any:
    """The made-up instance's questions, prepared for one pass over the video."""
    clip = problem.clip
    return models.teacher.prepare(QUERIES, problem.times, clip.height, clip.width)


def asked_one_by_one(models: Models, problem: Problem) -> Any:
    """The same questions prepared for a pass over the video each."""
    clip, times = problem.clip, problem.times
    alone = [models.teacher.prepare([query], times, clip.height, clip.width) for query in QUERIES]
    together = questions_of(models, problem)
    return replace(together, passes=tuple(one.passes[0] for one in alone))


def frozen_of(models: Models) -> list[torch.Tensor]:
    """The tensors that are the models' own."""
    parts: list[Any] = [models.reasoner.network, getattr(models.reasoner, "vae", None)]
    parts += [getattr(part, "network", None) for part in (models.decoder, models.teacher)]
    return [tensor for part in parts if part is not None for tensor in part.parameters()]


def recompute_activations(models: Models, on: bool) -> None:
    """Turns checkpointing on (`full`) or off in all parts, as `fit.checkpointing` does."""
    from vlmteach.models import recompute

    recompute(models, "full" if on else "none")
