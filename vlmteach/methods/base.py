"""What a method is: an instance in; a clip, its files and a decision out, all counted alike."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from lightning.pytorch.loggers import Logger

from vlmteach.classes import make
from vlmteach.clip_writer import ClipWriter
from vlmteach.config import Config, RewardConfig
from vlmteach.instances import clip_spec, fit_first_frame
from vlmteach.models import Models
from vlmteach.problem import Problem, pose, reset, sample
from vlmteach.queries import queries_to_json, resolve_queries
from vlmteach.reasoners.clips import check_first_frame
from vlmteach.record import write_json
from vlmteach.reward import TEACHER, Keep, Reward, TeacherReward, Term, instance_loss
from vlmteach.rollout import Prediction, draw_noise
from vlmteach.stops import Interruption
from vlmteach.types import (
    ClipSpec,
    Compute,
    Decision,
    Instance,
    Outcome,
    Query,
    QuerySet,
    Reading,
    Role,
)
from vlmteach.video import to_uint8
from vlmteach.watch import watch

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.prefix import Prefix
    from vlmteach.teachers.base import Watcher

VERSIONED = ("vlmteach", "torch", "lightning", "diffusers", "transformers", "peft")
SURROGATE = "decoded by the surrogate decoder, not by the VAE"
"""Comment in the file of a clip of which that is so."""

Tell = Callable[[Reading | None], None]
"""Is told each reading, and None: still at work."""
Review = Callable[[QuerySet], QuerySet]
"""Sees an instance's queries before they are asked, and may hand back others."""


@dataclass(frozen=True)
class Resources:
    """What every method works with: one process's models and the run's settings."""

    config: Config
    models: Models
    file_queries: Mapping[str, tuple[Query, ...]]
    """Queries given by `--queries`, by instance key."""

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The rewards that the micro-fit climbs; made once, as they may hold networks."""
        return terms_of(self.config, self.models.teacher)


class Method(Protocol):
    """A way to solve an instance; made once per run with its `Resources`."""

    name: str
    adapts: bool
    """Whether it works with the adapter, which is reset before; else the base model is at work."""

    def solve(self, work: Work) -> Decision:
        """Solves one instance: leaves `clip.mp4` and its own records in `work.folder`.

        Raises:
            ValueError: for an instance these models cannot take.
        """
        ...


@dataclass
class Work:
    """One instance at work: its framing, its clock and its counters."""

    resources: Resources
    instance: Instance
    """Its first frame is already of the clip's size."""
    folder: Path
    clip: ClipSpec
    seed: int
    tell: Tell
    """Called with each reading, where the method makes any, and with None after each stage."""
    logger: Logger | Sequence[Logger] | None = None
    """Lightning loggers for the curves."""
    review: Review | None = None
    interruption: Interruption | None = None
    """By which a person may end the fit."""
    ahead: Sequence[str] = ()
    """Prompts of the instances that come after this one."""
    clips: ClipWriter = field(default_factory=ClipWriter)
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
                device = self.resources.models.reasoner.device
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            passed = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + passed, 4)
            self.tell(None)

    def queries(self) -> QuerySet:
        """The queries to ask; all that the instance has are kept in `queries.json`."""
        query = self.resources.config.query
        with self.stage("queries"):
            queries = resolve_queries(
                self.instance,
                self.resources.models.teacher,
                self.resources.file_queries,
                source=query.source,
                max_process=query.max_process,
                max_replies=query.max_replies,
            )
        self.teacher_calls += queries.replies
        if self.review is not None:
            queries = self.review(queries)
        write_json(self.folder / "queries.json", queries_to_json(queries))
        return queries.asked(query.ask)

    def pose(self, *, prompt: str | None = None, first_frame: Image | None = None) -> Problem:
        """The instance made ready, with its own noise.

        Args:
            prompt: told to the reasoner instead of the instance's own.
            first_frame: given to the reasoner instead of the instance's own; of the clip's size.
        """
        config = self.resources.config
        instance = replace(
            self.instance,
            prompt=self.instance.prompt if prompt is None else prompt,
            first_frame=self.instance.first_frame if first_frame is None else first_frame,
        )
        with self.stage("encode"):
            return pose(
                self.resources.models,
                instance,
                self.clip,
                ladder=config.reasoner.ladder,
                frames=config.teacher.frames,
                seed=self.seed,
                # Those that are told to the reasoner as they are, if this one's is.
                ahead=self.ahead if prompt is None else (),
            )

    def candidate(self, problem: Problem, number: int) -> Problem:
        """The same problem from another of the instance's noises; 0 is its own."""
        noise = draw_noise(
            problem.noise.z1.shape,
            len(problem.ladder),
            seed=self.seed,
            key=self.instance.key,
            device=self.resources.models.reasoner.device,
            candidate=number,
        )
        return replace(problem, noise=noise)

    def sample(
        self,
        problem: Problem,
        name: str,
        *,
        prefixes: Sequence[Prefix] = (),
        after: Prediction | None = None,
        surrogate: bool = False,
    ) -> torch.Tensor:
        """Full sampling into `<name>.mp4` (see `write_clip`); its frames, uint8 [T, H, W, 3].

        Args:
            problem: what is sampled.
            name: the file's.
            prefixes, after: what is known of it already, see `rollout`.
            surrogate: decoded by the reward path's decoder, which the file then says.
        """
        models = self.resources.models
        pixels = sample(models, problem, prefixes=prefixes, after=after, surrogate=surrogate)
        frames = to_uint8(pixels)
        self.write_clip(frames, name, SURROGATE if surrogate else "")
        return frames

    def write_clip(self, frames: torch.Tensor, name: str, comment: str = "") -> None:
        """A clip, uint8 [T, H, W, 3], into `<name>.mp4`, with a comment where there is one.

        It is encoded beside what follows. Whoever needs the file calls `finish_clips` before.
        """
        self.clips.write(self.folder / f"{name}.mp4", frames, self.clip.fps, comment)

    def finish_clips(self) -> None:
        """Returns once every clip is a file; after `solve` this is done for the method."""
        with self.stage("write"):
            self.clips.wait()

    def read(self, queries: QuerySet, frames: torch.Tensor, number: int) -> Reading:
        """What the teacher says of a delivered clip, uint8 [T, H, W, 3]: candidate `number`."""
        config = self.resources.config
        asked = queries.queries
        with self.stage("watch"):
            log_p_yes = watch(
                self.resources.models.teacher,
                frames,
                asked,
                fps=self.clip.fps,
                frames=config.teacher.frames,
            )
            roles: list[Role] = [query.role for query in asked]
            loss = instance_loss(log_p_yes, roles, config.fit.goal_weight)
        self.teacher_calls += 1
        refuse_no_number(loss.item())
        return Reading(number, loss.item(), tuple(log_p_yes.double().exp().tolist()))

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """What the teacher writes, counted; see `Writer`."""
        with self.stage("ask"):
            text = self.resources.models.teacher.write(instruction, images, max_new_tokens)
        self.teacher_calls += 1
        return text


def carry_out(
    method: Method,
    resources: Resources,
    instance: Instance,
    folder: Path,
    *,
    tell: Tell = lambda _: None,
    logger: Logger | Sequence[Logger] | None = None,
    review: Review | None = None,
    interruption: Interruption | None = None,
    ahead: Sequence[str] = (),
) -> Outcome:
    """Solves one instance by a method: all its files but `done.json`, all its costs counted.

    The instance is framed, the adapter is fresh, and the base model is at work unless the method
    adapts.

    Args:
        method: made with `resources`.
        resources: the process's models and settings.
        instance: as decoded.
        folder: the instance's output folder; exists.
        tell: called with each reading, where the method makes any, and with None after each stage
            of the work.
        logger: Lightning loggers for the curves, one or several.
        review: sees the queries before they are asked.
        interruption: by which a person may end the fit.
        ahead: prompts of the instances that come after it.

    Raises:
        ValueError: for an instance these models cannot take.
    """
    models = resources.models
    if models.reasoner.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(models.reasoner.device)
    work = _begin(resources, instance, folder, tell, logger)
    work.review, work.interruption, work.ahead = review, interruption, ahead
    reset(models, seed=work.seed, key=instance.key)

    def count_reasoner(*_: object) -> None:
        work.forwards += 1

    networks = getattr(models.reasoner, "networks", (models.reasoner.network,))
    hooks = [network.register_forward_hook(count_reasoner) for network in networks]
    try:
        with nullcontext() if method.adapts else models.lora.disabled(), work.clips:
            decision = method.solve(work)
            work.finish_clips()
    finally:
        for hook in hooks:
            hook.remove()
    return Outcome(
        key=instance.key,
        digest=instance.digest,
        method=method.name,
        seed=work.seed,
        compute=Compute(
            seconds=round(sum(work.seconds.values()), 3),
            reasoner_forwards=work.forwards,
            reasoner_backwards=work.backwards,
            teacher_calls=work.teacher_calls,
            peak_memory_gib=round(peak_memory_gib(models.reasoner.device), 3),
        ),
        **asdict(decision),
    )


def _begin(
    resources: Resources,
    instance: Instance,
    folder: Path,
    tell: Tell,
    logger: Logger | Sequence[Logger] | None,
) -> Work:
    """The instance framed as the reasoner can make it."""
    config, facts = resources.config, resources.models.reasoner.facts
    clip = clip_spec(
        instance,
        config.clip,
        size_multiple=facts.size_multiple,
        temporal_stride=facts.temporal_stride,
    )
    if instance.first_frame is not None:
        instance = replace(instance, first_frame=fit_first_frame(instance.first_frame, clip))
    check_first_frame(facts, instance.first_frame, clip)  # before the teacher is asked anything
    seed = config.run.seed if instance.seed is None else instance.seed
    return Work(resources, instance, folder, clip, seed, tell, logger)


def terms_of(config: Config, teacher: Watcher) -> tuple[Term, ...]:
    """The rewards of a config, those of weight 0 left out: the teacher's, `keep`, the user's own.

    A reward of the user's is named as its class is, and numbered where the name is taken: by one
    before it, by the teacher's or by `keep`.

    Raises:
        ValueError: a class that cannot be made, or that is no reward.
    """
    terms: list[Term] = []
    if config.fit.teacher_weight:
        terms.append(Term(TEACHER, TeacherReward(teacher), config.fit.teacher_weight))
    if config.fit.keep_weight:
        terms.append(Term("keep", Keep(), config.fit.keep_weight))
    for spec in config.reward:
        if spec.weight:
            name = spec.class_path.rpartition(".")[2]
            others = {TEACHER, "keep"} | {term.name for term in terms}
            alike = sum(other.partition(" ")[0] == name for other in others)
            name = f"{name} {alike + 1}" if alike else name
            terms.append(Term(name, _reward(spec), spec.weight))
    return tuple(terms)


def _reward(spec: RewardConfig) -> Reward:
    made = make(spec)
    missing = [name for name in ("prepare", "scores") if not callable(getattr(made, name, None))]
    if missing:
        raise ValueError(
            f"--reward: got {spec.class_path} without {' and '.join(missing)}, expected a class "
            "with prepare(watched) and scores(frames, prepared); see vlmteach.reward.Reward"
        )
    return made


def refuse_no_number(loss: float) -> None:
    """Refuses a loss of weights that no update has touched, where it is no number.

    Raises:
        FloatingPointError: reasoner, decoder or teacher is broken, not the fit.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"loss: got {loss} before any update, expected a number; the reasoner, the decoder or "
            "the teacher leaves its dtype's range: try dtype float32 for each in turn; or a reward "
            "of your own gives none: leave it out"
        )


def peak_memory_gib(device: torch.device) -> float:
    """CUDA: peak allocated since the last reset; CPU: the process's peak resident set so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@cache
def versions() -> dict[str, str]:
    """Of the packages that a result depends on."""
    return {name: version(name) for name in VERSIONED}
