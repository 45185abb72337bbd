"""VLM-as-teacher, the method of the paper: queries, micro-fit, full sampling."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from vlmteach import micro_fit
from vlmteach.adapter_notes import ADAPTER, COMFYUI, notes_of
from vlmteach.callbacks import FitCallbacks, callback_maker, fit_callbacks
from vlmteach.classes import maker
from vlmteach.config import Config
from vlmteach.guard import keep_guard
from vlmteach.lora_init import align
from vlmteach.methods.base import Resources, Work, peak_memory_gib, refuse_no_number, versions
from vlmteach.methods.prompt_rewrite import rewrite
from vlmteach.models import Models, checkpointing_of, recompute
from vlmteach.problem import Problem, predict, reset
from vlmteach.recompute import Checkpointing, cheaper
from vlmteach.record import write_json
from vlmteach.reward import Objective, Watched
from vlmteach.rollout import Prediction, gradient_span
from vlmteach.seeding import generator
from vlmteach.text import printable
from vlmteach.types import Decision, FitRecord, QuerySet, Reading


@dataclass(frozen=True)
class Makers:
    """The classes that a config names for a fit: found and checked once, made for each fit."""

    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer], Any] | None
    callbacks: tuple[Callable[[], pl.Callback], ...]

    @classmethod
    def of(cls, config: Config) -> Makers:
        """Those of a config.

        Raises:
            ValueError: a class that is not there, or arguments it does not take.
        """
        optimizer = maker(config.optimizer, positional=1, given=("lr",))
        return cls(
            optimizer=lambda parameters: optimizer(parameters, lr=config.fit.learning_rate),
            scheduler=config.scheduler and maker(config.scheduler, positional=1),
            callbacks=tuple(map(callback_maker, config.callbacks)),
        )


class MicroFitMethod:
    """Algorithm 1. Writes queries, record, adapters, the base video and the clip."""

    name = "micro_fit"
    adapts = True

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        # Made now: a class that cannot be made fails no instance, and is looked up once.
        self.terms = resources.terms
        self.makers = Makers.of(resources.config)

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        config, models = self.resources.config, self.resources.models
        queries = work.queries()
        written = rewrite(work) if config.fit.rewrite_prompt else None
        problem = work.pose()
        fitted = problem if written is None else work.pose(prompt=written.prompt)
        candidate, module, of_base = self._choose_noise(work, fitted, queries)
        module, callbacks, ran_out = self._fit_in_memory(work, module)
        best, curves = callbacks.best, callbacks.curves
        base_video = config.run.base_video
        if base_video != "none":  # after the fit, which has already predicted its first rungs
            known = (of_base or module.of_base) if fitted is problem else None
            with work.stage("base"), models.lora.disabled():
                work.sample(problem, "base", after=known, surrogate=base_video == "surrogate")
        with work.stage("sample"):
            known = best.prediction_of(models.lora)
            work.sample(module.problem, "clip", prefixes=module.prefixes, after=known)
        kept_loss = best.loss if best.step is not None else None
        # A callback of the user's may end it in Lightning's own way, and say nothing.
        stop_reason = module.stop_reason or "callback"
        record = FitRecord(
            key=work.instance.key,
            digest=work.instance.digest,
            clip=work.clip,
            seed=work.seed,
            queries=queries,
            readings=tuple(curves.readings),
            stop_reason=stop_reason,
            steps=module.updates,
            kept_step=best.step,
            kept_loss=kept_loss,
            seconds=work.seconds,  # still counted: of writing, too, when the record is written
            peak_memory_gib=round(peak_memory_gib(models.reasoner.device), 3),
            teacher_layout=models.teacher.facts.layout,
            versions=versions(),
            checkpointing=checkpointing_of(models),
            ran_out_of_memory=ran_out,
        )
        notes = notes_of(
            config,
            models.base,
            record,
            prompt=work.instance.prompt,
            told=None if written is None else written.prompt,
            candidate=candidate,
            image=work.instance.first_frame is not None,
        )
        with work.stage("write"):
            models.lora.export(
                work.folder / ADAPTER,
                work.folder / COMFYUI,
                models.reasoner.comfyui_key,
                notes,
            )
        work.finish_clips()  # so that the record has all seconds
        if base_video == "full" and candidate == 0:  # else no match for comparing pixels
            with work.stage("guard"):
                keep_guard(work.folder, *_least_p_yes(curves.readings, best.step))
        write_json(work.folder / "fit.json", record)
        return Decision(
            query_source=queries.source,
            fallbacks=int(written is not None and written.source == "instance"),
            stop_reason=stop_reason,
            steps=module.updates,
            candidate=candidate,
            first_loss=curves.readings[0].loss,
            kept_step=best.step,
            kept_loss=kept_loss,
            base_video=None if base_video == "none" else str(base_video),
            ran_out_of_memory=ran_out,
        )

    def _choose_noise(
        self, work: Work, problem: Problem, queries: QuerySet
    ) -> tuple[int, micro_fit.MicroFit, Prediction | None]:
        """The number of the noise whose prediction the rewards like best before any update, its
        fit, and where several were tried the base model's prediction from the first."""
        count = self.resources.config.fit.noises
        if count == 1:
            return 0, self._module(work, problem, queries), None
        of_base = None
        found: list[tuple[float, int, micro_fit.MicroFit]] = []
        for number in range(count):
            module = self._module(work, work.candidate(problem, number), queries)
            with work.stage("noises"):
                loss = module.loss_of_base()
            refuse_no_number(loss)
            of_base = of_base or module.of_base
            if module.objective.query_roles:
                work.teacher_calls += 1
            # One is held at a time: each has the prefix of its noise.
            found = [min([*found, (loss, number, module)], key=lambda each: each[:2])]
        ((_, chosen, module),) = found
        return chosen, module, of_base

    def _module(self, work: Work, problem: Problem, queries: QuerySet) -> micro_fit.MicroFit:
        """A fit of a problem, its rewards prepared."""
        config, models = self.resources.config, self.resources.models
        with work.stage("encode"):
            watched = watched_of(work, problem, queries)
            objective = Objective(self.terms, watched, config.fit.goal_weight)
        return fit_of(models, problem, objective, config, self.makers)

    def _fit_in_memory(
        self, work: Work, module: micro_fit.MicroFit
    ) -> tuple[micro_fit.MicroFit, FitCallbacks, Checkpointing | None]:
        """The fit, once more with less kept for the backward pass where memory does not suffice.

        Returns:
            The module that was fitted, its callbacks, and the mode that ran out of memory. The
            cheaper one stays for the instances that follow.
        """
        models, problem, objective = self.resources.models, module.problem, module.objective
        mode = checkpointing_of(models)
        less = mode and cheaper(mode)
        try:
            return module, self._fit(work, module), None
        except torch.OutOfMemoryError:
            if less is None:
                raise
        # Here the error is gone; with what its frames held, memory can be had again.
        key = printable(work.instance.key)
        told = f"{key}: out of memory with fit.checkpointing {mode}; once more with {less}"
        print(told, file=sys.stderr)
        for parameter in models.lora.parameters:
            parameter.grad = None
        module.let_go()  # whoever called holds it still
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        recompute(models, less)
        reset(models, seed=work.seed, key=work.instance.key)
        module = fit_of(models, problem, objective, self.resources.config, self.makers)
        return module, self._fit(work, module), mode

    def _fit(self, work: Work, module: micro_fit.MicroFit) -> FitCallbacks:
        config = self.resources.config
        if config.lora.init == "gradient":

            def loss() -> torch.Tensor:
                total = module().total
                refuse_no_number(total.item())
                return total

            draw = generator(work.seed, work.instance.key, "lora/sketch")
            with work.stage("align"):
                align(self.resources.models.lora, loss, draw)
            work.backwards += module.last_rung - module.grad_from + 1
            work.teacher_calls += bool(module.objective.query_roles)
        predictions = work.folder if config.run.predictions else None
        callbacks = fit_callbacks(
            config.fit, work.tell, self.makers.callbacks, predictions, work.interruption
        )
        with work.stage("fit"):
            micro_fit.fit(
                module,
                steps=config.fit.steps,
                callbacks=callbacks.all,
                logger=work.logger,
                folder=work.folder,
            )
        readings = callbacks.curves.readings
        if not readings:
            raise ValueError(
                "callbacks: got one that ended the fit before its first reading, expected at "
                "least one; give it more time, or leave it out"
            )
        refuse_no_number(readings[0].loss)
        back = sum(reading.gradient_norm is not None for reading in readings)
        work.backwards += back * (module.last_rung - module.grad_from + 1)
        if module.objective.query_roles:
            work.teacher_calls += len(readings)
        return callbacks


def _least_p_yes(
    readings: Sequence[Reading], kept_step: int | None
) -> tuple[float | None, float | None]:
    """The least P(yes) of any query at the first reading and at that of the kept weights."""
    kept = next((reading for reading in readings if reading.step == kept_step), None)
    first, last = (min(each.p_yes, default=None) if each else None for each in (readings[0], kept))
    return first, last


def watched_of(work: Work, problem: Problem, queries: QuerySet) -> Watched:
    """What the rewards of an instance are told."""
    models, instance = work.resources.models, work.instance

    @torch.no_grad()
    def base() -> torch.Tensor:
        mode = work.resources.config.fit.gradient
        last_rung, _ = gradient_span(mode, len(problem.ladder))
        with models.lora.disabled():
            z0 = predict(models, problem, last_rung=last_rung, grad_from=last_rung + 1)
            return models.decoder.decode(z0, problem.frames)

    return Watched(
        key=instance.key,
        prompt=instance.prompt,
        first_frame=instance.first_frame,
        queries=queries.queries,
        times=problem.times,
        height=problem.clip.height,
        width=problem.clip.width,
        device=models.reasoner.device,
        base=base,
    )


def fit_of(
    models: Models, problem: Problem, objective: Objective, config: Config, makers: Makers
) -> micro_fit.MicroFit:
    """The micro-fit that a config makes of a problem: its rungs, shift, optimiser and schedule."""
    fit = config.fit
    last_rung, grad_from = gradient_span(fit.gradient, len(problem.ladder))
    return micro_fit.MicroFit(
        models,
        problem,
        objective,
        last_rung=last_rung,
        grad_from=grad_from,
        shift=fit.shift,
        optimizer=makers.optimizer,
        scheduler=makers.scheduler,
    )
