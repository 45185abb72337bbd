"""VLM-as-teacher, the method of the paper: queries, micro-fit, full sampling."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import Logger

from vlmteach import micro_fit
from vlmteach.callbacks import (
    BestAdapter,
    Curves,
    GradientHealth,
    Progress,
    StepCap,
    StopAtLoss,
)
from vlmteach.methods.base import Resources, Tell, Work, begin, peak_memory_gib, versions
from vlmteach.methods.prompt_rewrite import rewrite
from vlmteach.record import write_json
from vlmteach.rollout import gradient_span
from vlmteach.types import FitRecord, Instance, Outcome, QuerySet


class MicroFitMethod:
    """Algorithm 1. Writes queries, record, adapters, the base video and the clip."""

    name = "micro_fit"

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
        config, models = self.bench.config, self.bench.models
        with begin(self.bench, instance, folder, tell) as work:
            queries = work.queries()
            written = rewrite(work) if config.fit.rewrite_prompt else None
            problem = work.pose(queries)
            if config.run.base_video:
                with work.stage("base"), models.lora.disabled():
                    work.sample(problem, "base")
            if written is not None:
                problem = work.pose(queries, prompt=written.prompt)
            candidate, problem = self._choose_noise(work, problem)
            module, best, curves = self._fit(work, problem, tell, logger)
            with work.stage("sample"):
                work.sample(problem, "clip")
            with work.stage("write"):
                models.lora.export(
                    folder / "adapter.safetensors",
                    folder / "adapter.comfyui.safetensors",
                    models.reasoner.comfyui_key,
                )
            write_json(folder / "fit.json", self._record(work, queries, module, best, curves))
        return work.outcome(
            self.name,
            query_source=queries.source,
            fallbacks=int(written is not None and written.source == "instance"),
            stop_reason=module.stop_reason,
            steps=module.updates,
            candidate=candidate,
            first_loss=curves.readings[0].loss,
            kept_step=best.step,
            kept_loss=best.loss if best.step is not None else None,
        )

    def _choose_noise(
        self, work: Work, problem: micro_fit.Problem
    ) -> tuple[int, micro_fit.Problem]:
        """The noise whose prediction the teacher likes best before any update, and its number."""
        count = self.bench.config.fit.noises
        if count == 1:
            return 0, problem
        problems = [work.candidate(problem, number) for number in range(count)]
        with work.stage("noises"):
            losses = [self._module(candidate).loss_of_base() for candidate in problems]
        work.teacher_calls += count
        chosen = min(range(count), key=losses.__getitem__)
        return chosen, problems[chosen]

    def _module(self, problem: micro_fit.Problem) -> micro_fit.MicroFit:
        fit = self.bench.config.fit
        stop, grad_from = gradient_span(fit.gradient, len(problem.ladder))
        return micro_fit.MicroFit(
            self.bench.models,
            problem,
            stop=stop,
            grad_from=grad_from,
            goal_weight=fit.goal_weight,
            shift=fit.shift,
            learning_rate=fit.learning_rate,
            optimizer=fit.optimizer,
            weight_decay=fit.weight_decay,
        )

    def _fit(
        self,
        work: Work,
        problem: micro_fit.Problem,
        tell: Tell,
        logger: Logger | None,
    ) -> tuple[micro_fit.MicroFit, BestAdapter, Curves]:
        fit = self.bench.config.fit
        module, best, curves = self._module(problem), BestAdapter(fit.keep), Curves()
        callbacks = [
            GradientHealth(),
            StopAtLoss(fit.threshold),
            StepCap(fit.steps),
            best,
            curves,
            Progress(tell),
        ]
        with work.stage("fit"):
            micro_fit.fit(module, steps=fit.steps, callbacks=callbacks, logger=logger)
        back = sum(reading.gradient_norm is not None for reading in curves.readings)
        work.backwards += back * (module.stop_rung - module.grad_from + 1)
        work.teacher_calls += len(curves.readings)
        return module, best, curves

    def _record(
        self,
        work: Work,
        queries: QuerySet,
        module: micro_fit.MicroFit,
        best: BestAdapter,
        curves: Curves,
    ) -> FitRecord:
        assert module.stop_reason is not None, "a fit ends by a callback, which says why"
        models = self.bench.models
        return FitRecord(
            key=work.instance.key,
            digest=work.instance.digest,
            clip=work.clip,
            seed=work.seed,
            queries=queries,
            readings=tuple(curves.readings),
            stop_reason=module.stop_reason,
            steps=module.updates,
            kept_step=best.step,
            kept_loss=best.loss if best.step is not None else None,
            seconds=work.seconds,
            peak_memory_gib=round(peak_memory_gib(models.reasoner.device), 3),
            teacher_layout=models.teacher.facts.layout,
            versions=versions(),
        )
