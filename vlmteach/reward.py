"""Rewards: decoded frames in, log-likelihoods out, with gradient; and the loss they add up to.

The teacher's is the default: its log P("Yes") for each query (Eq. 4), weighted by Eq. 5. `Keep`
holds the prediction near the base model's own. A reward of your own is a class with two methods,
`prepare` and `scores`; `--reward my_rewards.Mine --reward.weight 0.2` adds it to the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vlmteach.frames import shifted

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from vlmteach.teachers.base import Watcher
    from vlmteach.types import Query, Role

TEACHER = "teacher"
"""The name of the teacher's own term in records and curves."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a reward is told of an instance, once, before any update. Nothing of the solution."""

    key: str
    prompt: str
    first_frame: Image | None
    """RGB, H x W; None for text-to-video."""
    queries: tuple[Query, ...]
    """Q yes/no questions about the clip, phrased so that "Yes" is good."""
    times: tuple[float, ...]
    """Seconds from the clip's start of the K frames that `scores` will be given, ascending."""
    height: int
    """H of the frames, pixels."""
    width: int
    """W of the frames, pixels."""
    device: torch.device
    """Where the frames will be."""
    base: Callable[[], Tensor]
    """Decodes the base model's own prediction of the same noise, [K, 3, H, W], without gradient;
    costs a pass of reasoner and decoder."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All of a reward that no update changes."""

    roles: tuple[Role, ...]
    """Of each score, at least one: how Eq. 5 weighs it. One role alone carries the whole weight."""
    state: Any = None
    """The reward's own; it gets it back with each call."""


class Reward(Protocol):
    """What the micro-fit climbs. A reward lives as long as the process and serves every instance,
    so what belongs to one instance is kept in `Prepared`."""

    shifts: bool = True
    """Whether it may be shown the frames moved by `fit.shift` (a reward that learnt to see), or
    must have them in place (one that compares pixels). Missing, it is True."""

    def prepare(self, watched: Watched) -> Prepared:
        """Everything that does not depend on pixels, built once per instance.

        Raises:
            ValueError: an instance that it cannot judge; it gets an error row, others go on.
        """
        ...

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """[K, 3, H, W] in [0, 1] -> one score per role, [Q]; differentiable in `frames`.

        Scores are log-likelihoods: at most 0, and 0 for what could not be better, so that the loss
        keeps its meaning beside the threshold.
        """
        ...


class TeacherReward:
    """Eq. 4: the teacher's log P("Yes") of each query.

    Args:
        teacher: watches; never writes here.
    """

    shifts = True

    def __init__(self, teacher: Watcher) -> None:
        self.teacher = teacher

    def prepare(self, watched: Watched) -> Prepared:
        """Tokens and positions of the queries."""
        asked = watched.queries
        questions = self.teacher.prepare(
            [query.text for query in asked], watched.times, watched.height, watched.width
        )
        return Prepared(roles=tuple(query.role for query in asked), state=questions)

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """log P("Yes") per query, [Q]."""
        return self.teacher.log_p_yes(frames, prepared.state)


class Keep:
    """Minus the mean squared difference to the base model's own prediction of the same noise.

    A Gaussian's log-likelihood up to its scale, which the term's weight sets: the usual guard
    against a climbed judge, as it asks of every pixel that changes what the change is worth.
    """

    shifts = False

    def prepare(self, watched: Watched) -> Prepared:
        """The base's prediction, decoded once."""
        return Prepared(roles=("process",), state=watched.base())

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """[1], in squared pixel values, at most 0."""
        return -(frames - prepared.state).square().mean()[None]


@dataclass(frozen=True, slots=True)
class Term:
    """One reward of the sum."""

    name: str
    """In records and curves."""
    reward: Reward
    weight: float
    """Of its loss; above 0."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What all rewards together say of some frames."""

    total: Tensor
    """Scalar, with gradient: the weighted sum."""
    shares: dict[str, Tensor]
    """Term -> its part of `total`, scalar."""
    log_p_yes: Tensor | None
    """[Q] of the teacher's queries; None where it is not asked."""


class Objective:
    """The weighted sum of rewards, prepared for one instance.

    Args:
        terms: at least one.
        watched: the instance.
        goal_weight: lambda of Eq. 5, for every term.

    Raises:
        ValueError: no term, or an instance that one of them cannot judge.
    """

    def __init__(self, terms: Sequence[Term], watched: Watched, goal_weight: float) -> None:
        if not terms:
            raise ValueError(
                "rewards: got none, expected at least one; set fit.teacher_weight above 0, or "
                "name one with --reward"
            )
        self.goal_weight = goal_weight
        self._terms = [(term, _prepared(term, watched)) for term in terms]

    @property
    def query_roles(self) -> tuple[Role, ...]:
        """Roles of the queries that the teacher is asked; none where it is not."""
        asked = [prepared.roles for term, prepared in self._terms if term.name == TEACHER]
        return asked[0] if asked else ()

    def __call__(self, frames: Tensor, shift: tuple[float, float] = (0.0, 0.0)) -> Loss:
        """The loss of some frames.

        Args:
            frames: [K, 3, H, W] in [0, 1], as decoded.
            shift: down and right, as shares of H and W, for the rewards that may see it.

        Raises:
            ValueError: a reward whose scores are not one per role.
        """
        moved = shifted(frames, *shift)
        shares: dict[str, Tensor] = {}
        log_p_yes = None
        for term, prepared in self._terms:
            seen = moved if getattr(term.reward, "shifts", True) else frames
            scores = term.reward.scores(seen, prepared)
            shape = tuple(getattr(scores, "shape", ()))
            if shape != (len(prepared.roles),):
                got = f"scores of shape {shape}" if shape else f"{type(scores).__name__} {scores}"
                raise ValueError(
                    f"reward {term.name}: got {got}, expected "
                    f"({len(prepared.roles)},), one per role that its `prepare` returned"
                )
            shares[term.name] = term.weight * instance_loss(
                scores, prepared.roles, self.goal_weight
            )
            if term.name == TEACHER:
                log_p_yes = scores
        total, *others = shares.values()
        for share in others:
            total = total + share
        return Loss(total, shares, log_p_yes)


def _prepared(term: Term, watched: Watched) -> Prepared:
    prepared = term.reward.prepare(watched)
    if not getattr(prepared, "roles", None):
        raise ValueError(
            f"reward {term.name}: got {type(prepared).__name__} from its `prepare`, expected "
            "vlmteach.reward.Prepared with at least one role"
        )
    return prepared


def query_losses(log_p_yes: Tensor) -> Tensor:
    """Eq. 4: L_q = -log P("Yes" | video, q), [Q] -> [Q]; 0 is certain, grows without bound."""
    return -log_p_yes


def instance_loss(log_p_yes: Tensor, roles: Sequence[Role], goal_weight: float) -> Tensor:
    """Eq. 5: L = lambda L_goal + (1 - lambda) / M sum_m L_proc_m.

    Where an instance has queries of one role only, that role carries the whole weight, so that
    the threshold keeps its meaning.

    Args:
        log_p_yes: [Q] log-probabilities of "Yes".
        roles: the role of each query.
        goal_weight: lambda in [0, 1].

    Returns:
        Scalar loss, at least 0.

    Raises:
        ValueError: when there is not one role per query, or no query at all.
    """
    if len(roles) != log_p_yes.shape[0] or not roles:
        raise ValueError(
            f"roles: got {len(roles)} for {log_p_yes.shape[0]} queries, expected one each and at "
            "least one; pass the roles of exactly the queries that were asked"
        )
    losses = query_losses(log_p_yes)
    goal = [i for i, role in enumerate(roles) if role == "goal"]
    process = [i for i, role in enumerate(roles) if role == "process"]
    if not process:
        return losses[goal].mean()
    if not goal:
        return losses[process].mean()
    return goal_weight * losses[goal].mean() + (1 - goal_weight) * losses[process].mean()
