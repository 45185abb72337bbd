"""One instance made ready for the models; predicted and sampled with the adapter as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmteach import seeding
from vlmteach.frames import watched_frames
from vlmteach.rollout import Noise, Prediction, draw_noise, rollout, sample_latents

if TYPE_CHECKING:
    from vlmteach.models import Models
    from vlmteach.prefix import Prefix
    from vlmteach.reasoners.base import Condition
    from vlmteach.types import ClipSpec, Instance


@dataclass(frozen=True, slots=True)
class Problem:
    """All of an instance that stays fixed while the adapter learns."""

    clip: ClipSpec
    condition: Condition
    seed: int
    """The run's, or the instance's own."""
    key: str
    """The instance's."""
    noise: Noise
    """z1 and the re-noise draws, drawn once (Algorithm 1)."""
    ladder: tuple[float, ...]
    """Timesteps of 1000, descending."""
    frames: tuple[int, ...]
    """Indices of the K clip frames that are watched while the adapter learns."""

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from the clip's start of these K frames."""
        return tuple(index / self.clip.fps for index in self.frames)


@torch.no_grad()
def pose(
    models: Models,
    instance: Instance,
    clip: ClipSpec,
    *,
    ladder: Sequence[float],
    frames: int,
    seed: int,
    ahead: Sequence[str] = (),
) -> Problem:
    """Encodes and draws everything about an instance that no update changes.

    Args:
        models: the reasoner encodes, and the teacher says how many frames it watches.
        instance: its first frame is already H x W of `clip`.
        clip: to be made.
        ladder: the reasoner's sampling timesteps.
        frames: K at most.
        seed: the run's seed, or the instance's own.
        ahead: prompts that will be encoded soon, see `Reasoner.encode`.

    Raises:
        ValueError: for a clip or modality the reasoner cannot make.
    """
    shape = models.reasoner.latent_shape(clip)
    device = models.reasoner.device
    watched = watched_frames(models.teacher, clip.frames, frames, clip.height, clip.width)
    return Problem(
        clip=clip,
        condition=models.reasoner.encode(instance.prompt, instance.first_frame, clip, ahead),
        seed=seed,
        key=instance.key,
        noise=draw_noise(shape, len(ladder), seed=seed, key=instance.key, device=device),
        ladder=tuple(ladder),
        frames=tuple(watched),
    )


def reset(models: Models, *, seed: int, key: str) -> None:
    """A fresh adapter for an instance: the same bits whatever was fitted before."""
    models.lora.reset(seeding.generator(seed, key, "lora"))


def predict(
    models: Models,
    problem: Problem,
    *,
    last_rung: int,
    grad_from: int,
    prefixes: Sequence[Prefix] = (),
) -> Tensor:
    """The clean-latent prediction of a rung (Eq. 7 at the first), [1, C, t, h, w].

    Args:
        models: the reasoner, with its adapter as it stands.
        problem: the instance.
        last_rung: of the ladder, from 0.
        grad_from: first rung whose evaluation carries gradient; beyond `last_rung` none does.
        prefixes: of this problem, see `rollout`.
    """
    return rollout(
        models.reasoner,
        problem.condition,
        problem.noise,
        problem.ladder,
        last_rung=last_rung,
        grad_from=grad_from,
        prefixes=prefixes,
    )


@torch.no_grad()
def sample(
    models: Models,
    problem: Problem,
    *,
    prefixes: Sequence[Prefix] = (),
    after: Prediction | None = None,
    surrogate: bool = False,
) -> Tensor:
    """Full sampling from the same z1 with the adapter as it stands, through the standard VAE.

    Args:
        models: reasoner and adapter.
        problem: the instance.
        prefixes: of this problem, see `rollout`.
        after: of this problem and these weights, see `rollout`.
        surrogate: through the decoder of the reward path instead.

    Returns:
        Pixels [T, 3, H, W] in [0, 1].

    Raises:
        FloatingPointError: they are not numbers: a clip of them would be written in black.
    """
    z0 = sample_latents(
        models.reasoner,
        problem.condition,
        problem.noise,
        problem.ladder,
        prefixes=prefixes,
        after=after,
    )
    pixels = models.decoder.decode(z0) if surrogate else models.reasoner.decode(z0)
    if not torch.isfinite(pixels.sum()):
        raise FloatingPointError(
            "clip: got NaN or infinite pixels, expected numbers; the reasoner or its adapter "
            "leaves its dtype's range: try reasoner.dtype float32, or a lower learning rate"
        )
    return pixels
