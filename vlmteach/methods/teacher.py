"""The method of the paper: queries, micro-fit, full sampling, for one instance."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
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
from vlmteach.config import ClipConfig, Config
from vlmteach.instances import clip_spec, fit_first_frame
from vlmteach.models import Models
from vlmteach.queries import queries_to_json, resolve_queries
from vlmteach.reasoners.base import ReasonerFacts
from vlmteach.record import write_json
from vlmteach.rollout import gradient_span
from vlmteach.types import ClipSpec, FitRecord, Instance, Query, QuerySet, Reading
from vlmteach.video import to_uint8, write_video

VERSIONED = ("vlmteach", "torch", "lightning", "diffusers", "transformers", "peft")


class Stopwatch:
    """Wall seconds per named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            passed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + passed, 4)


def peak_memory_gib(device: torch.device) -> float:
    """CUDA: peak allocated since the last reset; CPU: the process's peak resident set so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def spec_for(instance: Instance, clip: ClipConfig, facts: ReasonerFacts) -> ClipSpec:
    """The clip to make for an instance: its own values first, then the config's."""
    return clip_spec(
        instance,
        frames=clip.frames,
        fps=clip.fps,
        max_pixels=clip.max_pixels,
        height=clip.height,
        width=clip.width,
        size_multiple=facts.size_multiple,
        temporal_stride=facts.temporal_stride,
    )


@dataclass(frozen=True)
class TeacherMethod:
    """VLM-as-teacher (Algorithm 1). Instance in; clip, adapter and record out, in a folder.

    Args:
        config: the run's config.
        models: the frozen models of this process.
        file_queries: queries given by `--queries`, by instance key.
    """

    config: Config
    models: Models
    file_queries: Mapping[str, tuple[Query, ...]]

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Callable[[Reading], None],
        logger: Logger | None,
    ) -> FitRecord:
        """Solves one instance and writes all its files but `done.json`.

        Args:
            folder: the instance's output folder; exists.
            tell: called with each reading.
            logger: a Lightning logger for the curves.

        Raises:
            ValueError: for an instance these models cannot take.
        """
        config, models, watch = self.config, self.models, Stopwatch()
        seed = config.run.seed if instance.seed is None else instance.seed
        device = models.reasoner.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        clip = spec_for(instance, config.clip, models.reasoner.facts)
        if instance.first_frame is not None:
            framed = fit_first_frame(instance.first_frame, clip)
            instance = replace(instance, first_frame=framed)
        micro_fit.reset(models, seed=seed, key=instance.key)
        with watch.stage("queries"):
            queries = resolve_queries(
                instance,
                models.teacher,
                self.file_queries,
                source=config.query.source,
                max_process=config.query.max_process,
                attempts=config.query.attempts,
            )
            write_json(folder / "queries.json", queries_to_json(queries))
        with watch.stage("encode"):
            problem = micro_fit.pose(
                models,
                instance,
                clip,
                queries,
                ladder=config.reasoner.ladder,
                frames=config.teacher.frames,
                seed=seed,
            )
        if config.run.base_video:
            with watch.stage("base"), models.lora.disabled():
                self._write_clip(problem, folder / "base.mp4")
        module, best, curves = self._fit(problem, tell, logger, watch)
        with watch.stage("sample"):
            self._write_clip(problem, folder / "clip.mp4")
        with watch.stage("write"):
            models.lora.export(
                folder / "adapter.safetensors",
                folder / "adapter.comfyui.safetensors",
                models.reasoner.comfyui_key,
            )
        record = self._record(instance, clip, seed, queries, module, best, curves, watch)
        write_json(folder / "fit.json", record)
        return record

    def _write_clip(self, problem: micro_fit.Problem, path: Path) -> None:
        pixels = micro_fit.sample(self.models, problem)
        write_video(path, to_uint8(pixels), problem.clip.fps)

    def _fit(
        self,
        problem: micro_fit.Problem,
        tell: Callable[[Reading], None],
        logger: Logger | None,
        watch: Stopwatch,
    ) -> tuple[micro_fit.MicroFit, BestAdapter, Curves]:
        fit = self.config.fit
        stop, grad_from = gradient_span(fit.gradient, len(problem.ladder))
        module = micro_fit.MicroFit(
            self.models,
            problem,
            stop=stop,
            grad_from=grad_from,
            goal_weight=fit.goal_weight,
            learning_rate=fit.learning_rate,
            optimizer=fit.optimizer,
            weight_decay=fit.weight_decay,
        )
        best, curves = BestAdapter(fit.keep), Curves()
        callbacks = [
            GradientHealth(),
            StopAtLoss(fit.threshold),
            StepCap(fit.steps),
            best,
            curves,
            Progress(tell),
        ]
        with watch.stage("fit"):
            micro_fit.fit(module, steps=fit.steps, callbacks=callbacks, logger=logger)
        return module, best, curves

    def _record(
        self,
        instance: Instance,
        clip: ClipSpec,
        seed: int,
        queries: QuerySet,
        module: micro_fit.MicroFit,
        best: BestAdapter,
        curves: Curves,
        watch: Stopwatch,
    ) -> FitRecord:
        assert module.stop_reason is not None, "a fit ends by a callback, which says why"
        return FitRecord(
            key=instance.key,
            digest=instance.digest,
            clip=clip,
            seed=seed,
            queries=queries,
            readings=tuple(curves.readings),
            stop_reason=module.stop_reason,
            steps=module.updates,
            kept_step=best.step,
            kept_loss=best.loss if best.step is not None else None,
            seconds=watch.seconds,
            peak_memory_gib=round(peak_memory_gib(self.models.reasoner.device), 3),
            teacher_layout=self.models.teacher.facts.layout,
            versions={name: version(name) for name in VERSIONED},
        )
