"""What a method is: an instance in; a clip, its files and an outcome out, all counted alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch.loggers import Logger

from vlmteach import micro_fit
from vlmteach.config import Config
from vlmteach.instances import clip_spec, fit_first_frame
from vlmteach.models import Models
from vlmteach.queries import queries_to_json, resolve_queries
from vlmteach.record import write_json
from vlmteach.reward import instance_loss
from vlmteach.rollout import draw_noise
from vlmteach.types import ClipSpec, Compute, Instance, Outcome, Query, QuerySet, Reading
from vlmteach.video import to_uint8, write_video

if TYPE_CHECKING:
    from PIL.Image import Image

VERSIONED = ("vlmteach", "torch", "lightning", "diffusers", "transformers", "peft")


Tell = Callable[[Reading | None], None]
"""Is told each reading, and None: still at work."""


class Method(Protocol):
    """A way to solve an instance."""

    name: str

    def solve(
        self,
        instance: Instance,
        folder: Path,
        *,
        tell: Tell,
        logger: Logger | None,
    ) -> Outcome:
        """Solves one instance and writes all its files but `done.json`.

        Args:
            instance: as decoded.
            folder: the instance's output folder; exists.
            tell: called with each reading, where the method makes any, and with None after each
                stage of the work.
            logger: a Lightning logger for the curves.

        Raises:
            ValueError: for an instance these models cannot take.
        """
        ...


@dataclass(frozen=True)
class Resources:
    """What every method works with: one process's models and the run's settings."""

    config: Config
    models: Models
    file_queries: Mapping[str, tuple[Query, ...]]
    """Queries given by `--queries`, by instance key."""


@dataclass
class Work:
    """One instance on the bench: its framing, its clock and its counters."""

    bench: Resources
    instance: Instance
    """Its first frame is already of the clip's size."""
    folder: Path
    clip: ClipSpec
    seed: int
    tell: Tell
    seconds: dict[str, float] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    teacher_calls: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall time of a `with` to `seconds[name]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            passed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + passed, 4)
            self.tell(None)

    def queries(self) -> QuerySet:
        """The queries to ask; all that the instance has are kept in `queries.json`."""
        query = self.bench.config.query
        with self.stage("queries"):
            queries = resolve_queries(
                self.instance,
                self.bench.models.teacher,
                self.bench.file_queries,
                source=query.source,
                max_process=query.max_process,
                max_replies=query.max_replies,
            )
        self.teacher_calls += queries.replies
        write_json(self.folder / "queries.json", queries_to_json(queries))
        if query.ask == "both":
            return queries
        return replace(queries, queries=tuple(q for q in queries.queries if q.role == query.ask))

    def pose(
        self,
        queries: QuerySet | None,
        *,
        prompt: str | None = None,
        first_frame: Image | None = None,
    ) -> micro_fit.Problem:
        """The instance made ready, with its own noise; without queries nothing is asked.

        Args:
            queries: what the teacher will be asked of the clip.
            prompt: told to the reasoner instead of the instance's own.
            first_frame: given to the reasoner instead of the instance's own; of the clip's size.
        """
        config = self.bench.config
        instance = replace(
            self.instance,
            prompt=self.instance.prompt if prompt is None else prompt,
            first_frame=self.instance.first_frame if first_frame is None else first_frame,
        )
        with self.stage("encode"):
            return micro_fit.pose(
                self.bench.models,
                instance,
                self.clip,
                queries,
                ladder=config.reasoner.ladder,
                frames=config.teacher.frames,
                seed=self.seed,
            )

    def candidate(self, problem: micro_fit.Problem, number: int) -> micro_fit.Problem:
        """The same problem from another of the instance's noises; 0 is its own."""
        noise = draw_noise(
            problem.noise.z1.shape,
            len(problem.ladder),
            seed=self.seed,
            key=self.instance.key,
            device=self.bench.models.reasoner.device,
            candidate=number,
        )
        return replace(problem, noise=noise)

    def sample(self, problem: micro_fit.Problem, name: str) -> torch.Tensor:
        """Full sampling into `<name>.mp4`; returns its frames, uint8 [T, H, W, 3]."""
        frames = to_uint8(micro_fit.sample(self.bench.models, problem))
        write_video(self.folder / f"{name}.mp4", frames, problem.clip.fps)
        return frames

    @torch.no_grad()
    def read(self, problem: micro_fit.Problem, frames: torch.Tensor, number: int) -> Reading:
        """What the teacher says of a delivered clip, uint8 [T, H, W, 3]: candidate `number`."""
        with self.stage("watch"):
            watched = frames[list(problem.frames)].permute(0, 3, 1, 2).float() / 255  # K C H W
            log_p_yes = self.bench.models.teacher.log_p_yes(watched, problem.questions)
            loss = instance_loss(log_p_yes, problem.roles, self.bench.config.fit.goal_weight)
        self.teacher_calls += 1
        return Reading(number, loss.item(), tuple(log_p_yes.double().exp().tolist()))

    def write(self, request: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """What the teacher writes in answer to a request about images."""
        with self.stage("ask"):
            text = self.bench.models.teacher.write(request, images, max_new_tokens)
        self.teacher_calls += 1
        return text

    def outcome(self, method: str, **told: Any) -> Outcome:
        """The row of a finished instance."""
        return Outcome(
            key=self.instance.key,
            digest=self.instance.digest,
            method=method,
            seed=self.seed,
            compute=Compute(
                seconds=round(sum(self.seconds.values()), 3),
                reasoner_forwards=self.forwards,
                reasoner_backwards=self.backwards,
                teacher_calls=self.teacher_calls,
                peak_memory_gib=round(peak_memory_gib(self.bench.models.reasoner.device), 3),
            ),
            **told,
        )


@contextmanager
def begin(bench: Resources, instance: Instance, folder: Path, tell: Tell) -> Iterator[Work]:
    """Frames an instance, resets the adapter and counts what is computed for it.

    Raises:
        ValueError: for a clip the reasoner cannot make.
    """
    config, models = bench.config, bench.models
    facts = models.reasoner.facts
    if models.reasoner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(models.reasoner.device)
    clip = clip_spec(
        instance,
        frames=config.clip.frames,
        fps=config.clip.fps,
        max_pixels=config.clip.max_pixels,
        height=config.clip.height,
        width=config.clip.width,
        size_multiple=facts.size_multiple,
        temporal_stride=facts.temporal_stride,
    )
    if instance.first_frame is not None:
        instance = replace(instance, first_frame=fit_first_frame(instance.first_frame, clip))
    seed = config.run.seed if instance.seed is None else instance.seed
    work = Work(bench, instance, folder, clip, seed, tell)
    micro_fit.reset(models, seed=seed, key=instance.key)

    def count_reasoner(*_: object) -> None:
        work.forwards += 1

    hook = models.reasoner.network.register_forward_hook(count_reasoner)
    try:
        yield work
    finally:
        hook.remove()


def peak_memory_gib(device: torch.device) -> float:
    """CUDA: peak allocated since the last reset; CPU: the process's peak resident set so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def versions() -> dict[str, str]:
    """Of the packages that a result depends on."""
    return {name: version(name) for name in VERSIONED}
