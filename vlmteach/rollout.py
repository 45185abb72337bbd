"""Sampling a step-distilled flow-matching model: one loop, with an explicit gradient switch.

At each rung of the ladder, a timestep of 1000 with sigma = timestep / 1000, the model predicts the
clean latents z0 = z - sigma u (Eq. 7 at the first rung); fresh noise takes them to the next rung,
z' = (1 - sigma') z0 + sigma' eps. That is the step of diffusers' `FlowMatchLCMScheduler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vlmteach.seeding import generator

if TYPE_CHECKING:
    from vlmteach.prefix import Prefix
    from vlmteach.reasoners.base import Condition, Reasoner


@dataclass(frozen=True, slots=True)
class Noise:
    """All the noise one instance ever sees: drawn once, kept for the whole micro-fit."""

    z1: Tensor
    """[1, C, t, h, w], the start of every rollout."""
    renoise: tuple[Tensor, ...]
    """One tensor like `z1` for each rung after the first."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a rollout has come to, for another one with the same weights to go on from."""

    rung: int
    """The last that was evaluated."""
    z0: Tensor
    """Its clean latents, [1, C, t, h, w], without gradient."""


def draw_noise(
    shape: Sequence[int],
    rungs: int,
    *,
    seed: int,
    key: str,
    device: torch.device,
    candidate: int = 0,
) -> Noise:
    """Draws the noise of one instance in float32 on the CPU, and moves it.

    Args:
        shape: latents, (1, C, t, h, w).
        rungs: length of the ladder.
        seed: the run's seed, or the instance's own.
        key: the instance's key.
        device: where the tensors are wanted.
        candidate: which of the instance's noises; 0 is the one a single sample is made from.
    """
    prefix = f"candidate/{candidate}/" if candidate else ""

    def draw(role: str) -> Tensor:
        generator_of_role = generator(seed, key, prefix + role)
        return torch.randn(tuple(shape), generator=generator_of_role).to(device)

    renoise = tuple(draw(f"renoise/{rung}") for rung in range(1, rungs))
    return Noise(z1=draw("noise"), renoise=renoise)


def gradient_span(mode: Literal["first", "last", "full"] | int, rungs: int) -> tuple[int, int]:
    """Which evaluations a gradient mode runs and which of them carry the gradient.

    Args:
        mode: `first` (Eq. 7), `last`, `full` (every rung), or one rung by number from 0.
        rungs: length of the ladder.

    Returns:
        (last_rung, grad_from) for `rollout`.

    Raises:
        ValueError: for a rung that the ladder does not have.
    """
    last = rungs - 1
    if mode == "full":
        return last, 0
    rung = {"first": 0, "last": last}[mode] if isinstance(mode, str) else mode
    if not 0 <= rung <= last:
        raise ValueError(
            f"fit.gradient: got rung {rung}, expected 0 to {last}; the ladder has {rungs} rungs"
        )
    return rung, rung


def rollout(
    reasoner: Reasoner,
    condition: Condition,
    noise: Noise,
    ladder: Sequence[float],
    *,
    last_rung: int,
    grad_from: int,
    prefixes: Sequence[Prefix] = (),
    after: Prediction | None = None,
) -> Tensor:
    """The clean-latent prediction of a rung, [1, C, t, h, w], with the first frame imposed.

    Args:
        reasoner: gives the velocity.
        condition: from `reasoner.encode`.
        noise: `z1` and one re-noise tensor per rung after the first; its dtype is the result's.
        ladder: descending timesteps in (0, 1000].
        last_rung: the last that is evaluated, and whose prediction is returned; from 0.
        grad_from: rungs from this one on record a gradient; earlier ones run under `no_grad`, and
            beyond `last_rung` nothing does.
        prefixes: one for each of the first rungs, of earlier rollouts of the same noise and
            condition: what is constant is not computed again. Same values, bit for bit.
        after: of an earlier rollout of the same noise and condition with the same weights: its
            rungs are not evaluated again. Same values, bit for bit.
    """
    assert 0 <= last_rung < len(ladder) <= len(noise.renoise) + 1
    first, z0 = (0, noise.z1) if after is None else (after.rung + 1, after.z0)
    z = z0
    # Of z: the noise is, and what a constant evaluation makes of it.
    is_constant = bool(prefixes) and first == 0
    for rung in range(first, last_rung + 1):
        sigma = ladder[rung] / 1000
        with nullcontext() if rung >= grad_from else torch.no_grad():
            if rung > 0:
                # z0 is not imposed here: the velocity never sees what lies on a given first frame.
                z = (1 - sigma) * z0 + sigma * noise.renoise[rung - 1]
            if is_constant:
                u = prefixes[rung].velocity(reasoner, z, sigma, condition)
                is_constant = prefixes[rung].is_whole and rung + 1 < len(prefixes)
            else:
                u = reasoner.velocity(z, sigma, condition)
            z0 = z - sigma * u
    return reasoner.impose(z0, condition)


def sample_latents(
    reasoner: Reasoner,
    condition: Condition,
    noise: Noise,
    ladder: Sequence[float],
    *,
    prefixes: Sequence[Prefix] = (),
    after: Prediction | None = None,
) -> Tensor:
    """Full sampling without gradient: the latents of the delivered video, [1, C, t, h, w].

    Args: see `rollout`.
    """
    rungs = len(ladder)
    return rollout(
        reasoner,
        condition,
        noise,
        ladder,
        last_rung=rungs - 1,
        grad_from=rungs,
        prefixes=prefixes,
        after=after,
    )
