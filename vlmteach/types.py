"""The words of the house as frozen dataclasses: one per boundary between two rooms.

Shape letters, everywhere in the package: B batch, T clip frames, t latent frames, C channels,
H W pixels, h w latent cells, K frames the teacher watches, Q queries, S tokens, V vocabulary.
Pixels are float in [0, 1], laid out T C H W, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["goal", "process"]


@dataclass(frozen=True, slots=True)
class Query:
    """A yes/no question about the video, phrased so that "Yes" is good (Eq. 3)."""

    text: str
    role: Role


QuerySource = Literal["sample", "file", "teacher", "generic", "edited"]


@dataclass(frozen=True, slots=True)
class QuerySet:
    """The queries of one instance and where they came from (`queries.json`)."""

    queries: tuple[Query, ...]
    """One goal query first, then one to three process queries."""
    source: QuerySource
    replies: int = 0
    """Times the teacher was asked; 0 when the queries were given."""
    refusals: tuple[str, ...] = ()
    """Why each refused reply was, in order."""

    def asked(self, ask: Role | Literal["both"]) -> QuerySet:
        """Those of one role (`query.ask`), or of both."""
        return replace(self, queries=tuple(q for q in self.queries if ask in ("both", q.role)))


@dataclass(frozen=True, slots=True)
class Instance:
    """One task to solve: a prompt, perhaps a first frame, and what the sample says of the clip.

    Holds nothing of the solution: final frame, ground truth and metadata live in `HeldOut`,
    which only scoring reads.
    """

    key: str
    """Identity within a data set; may contain "/". Seeds derive from it."""
    prompt: str
    first_frame: Image | None
    """RGB condition image; None for text-to-video."""
    digest: str
    """sha256 over prompt, first frame and fields: the identity of the content."""
    frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    seed: int | None = None
    """Overrides the run's seed for this instance."""
    queries: tuple[Query, ...] = ()
    """Queries that came with the sample; empty when the teacher should write them."""
    task: str | None = None
    category: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The members of a sample that generation and teacher cannot reach; encoded bytes."""

    key: str
    final_png: bytes | None
    ground_truth_mp4: bytes | None
    meta: dict | None


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The clip a reasoner is asked for: T frames of H x W pixels at `fps` frames per second."""

    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What the teacher said before update n: the loss belongs to the weights before that update."""

    step: int
    """n, the number of updates made before."""
    loss: float
    p_yes: tuple[float, ...]
    """P("Yes") per query, in the order of the instance's queries; empty where the teacher is not
    asked."""
    shares: dict[str, float] = field(default_factory=dict)
    """Reward -> its weighted part of the loss."""
    gradient_norm: float | None = None
    """L2 norm over the whole adapter; None where no backward pass was made."""


StopReason = Literal[
    "threshold",
    "step_cap",
    "interrupted",
    "non_finite_loss",
    "non_finite_gradient",
    "zero_gradient",
]


@dataclass(frozen=True, slots=True)
class FitRecord:
    """How one micro-fit went (`fit.json`)."""

    key: str
    digest: str
    clip: ClipSpec
    seed: int
    queries: QuerySet
    readings: tuple[Reading, ...]
    stop_reason: StopReason | str
    """A callback of the user's may give a reason of its own."""
    steps: int
    """Updates made."""
    kept_step: int | None
    """Updates made before the kept weights; None when no reading was finite and the adapter is
    the fresh one."""
    kept_loss: float | None
    seconds: dict[str, float]
    """Wall time per stage: queries, encode, fit, sample, write."""
    peak_memory_gib: float
    """CUDA: peak allocated during this instance; CPU: peak resident set of the process so far."""
    teacher_layout: str
    """How the teacher's video tokens were laid out; releases of one library differ in it."""
    versions: dict[str, str]
    checkpointing: str | None = None
    """What the backward passes recomputed: `none`, `selective`, `full`."""
    ran_out_of_memory: str | None = None
    """The checkpointing with which the fit did not fit into memory; it was begun anew with that
    above."""


@dataclass(frozen=True, slots=True)
class Compute:
    """What one instance cost, counted the same way for every method."""

    seconds: float
    reasoner_forwards: int
    """Passes of the video model's network, with or without gradient."""
    reasoner_backwards: int
    """Passes back through it."""
    teacher_calls: int
    """Times the teacher watched a clip or wrote a text."""
    peak_memory_gib: float


Selector = Literal["teacher", "vlm_pick", "oracle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a method decided on one instance, besides its files."""

    query_source: QuerySource | None = None
    stop_reason: StopReason | str | None = None
    steps: int = 0
    """Updates made."""
    candidate: int = 0
    """Which of the instance's noises the clip was made from; the first, where several were."""
    selector: Selector | None = None
    """Who picked that candidate of the best of N; by `oracle`, candidate 0 stands until the
    benchmark picks."""
    fallbacks: int = 0
    """Requests to the teacher that brought no usable text, so that the last resort was taken
    (the instance's own prompt, candidate 0, ...); generic queries are told by `query_source`."""
    first_loss: float | None = None
    """The loss before anything was done for the instance."""
    kept_step: int | None = None
    kept_loss: float | None = None
    """The loss of what was kept."""
    base_video: str | None = None
    """What decoded `base.mp4`: `full`, the VAE as for the clip, or `surrogate`; None where there is
    no such file."""
    ran_out_of_memory: str | None = None
    """The `fit.checkpointing` with which the fit ran out of memory, before a cheaper one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Decision):
    """How a method ended on one instance (`done.json`, and its row of `results.jsonl`)."""

    key: str
    digest: str
    method: str
    seed: int
    compute: Compute
