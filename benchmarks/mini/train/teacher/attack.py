"""Climbing the teacher: videos changed so that it says yes, as a micro-fit would change them.

A LoRA on a video model moves pixels smoothly: it shifts and bends what is there, and changes
colours over patches. So does this attack, and the rules say what its videos are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic

LogYes = Callable[[Tensor], Tensor]
"""[B, T, 3, H, W] -> [B, Q] log P("Yes")."""


Shown = Callable[[Sequence[Tensor]], Tensor]
"""Parameters in [-1, 1] -> [B, T, 3, H, W] in [0, 1]."""


def climbed(start: Sequence[Tensor], shown: Shown, log_yes: LogYes, *, steps: int) -> Tensor:
    """Frames after some steps of signed gradient ascent on the teacher's yes.

    The objective is the one of a micro-fit: half the goal's log-probability, half the process
    queries' mean.

    Args:
        start: parameters in [-1, 1] to begin with; they stay there.
        shown: the frames of parameters.
        log_yes: the teacher, for these videos' queries; the goal first.
        steps: of ascent.
    """
    size = 2.0 / max(steps, 2)
    at = [part.detach() for part in start]
    for _ in range(steps):
        at = [part.requires_grad_() for part in at]
        answers = log_yes(shown(at))
        aim = 0.5 * answers[:, 0] + 0.5 * answers[:, 1:].mean(1)
        ups = torch.autograd.grad(aim.sum(), at)
        with torch.no_grad():
            at = [(p + size * up.sign()).clamp(-1, 1) for p, up in zip(at, ups, strict=True)]
    with torch.no_grad():
        return shown(at)


def in_pixels(
    frames: Tensor, *, colour: Tensor, pixels: Tensor, draw: torch.Generator
) -> tuple[list[Tensor], Shown]:
    """Start and frames of a search over smooth changes of colour and place.

    The first frame, which is given, stays.

    Args:
        frames: [B, T, 3, H, W] in [0, 1].
        colour: [B] largest change of a pixel's value.
        pixels: [B] largest displacement, in pixels.
        draw: for the starting point.
    """
    b, t = frames.shape[:2]
    start = [0.3 * (2 * torch.rand(b, 3, c, 8, 8, generator=draw) - 1) for c in (3, 2)]

    def shown(at: Sequence[Tensor]) -> Tensor:
        paint, flow = at
        out = _warped(frames, _drawn_out(flow, t) * pixels.view(-1, 1, 1, 1, 1))
        out = out + _drawn_out(paint, t) * colour.view(-1, 1, 1, 1, 1)
        return torch.cat([frames[:, :1], out[:, 1:]], 1).clamp(0, 1)

    return start, shown


class Codec:
    """The recipe's autoencoder as the attack sees it."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """[B, T, 3, H, W] in [0, 1] -> normalised latents [B, C, t, h, w]."""
        with quick_arithmetic():
            z = self.vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()
        return autoencoder.normalised(self.vae, z.float())

    def decode(self, z: Tensor) -> Tensor:
        """Inverse of `encode`, clamped; differentiable."""
        with quick_arithmetic():
            video = autoencoder.decode(self.vae, autoencoder.denormalised(self.vae, z))
        return (video.float() / 2 + 0.5).clamp(0, 1).transpose(1, 2)


def in_latents(
    frames: Tensor, codec: Codec, *, reach: Tensor, draw: torch.Generator
) -> tuple[list[Tensor], Shown]:
    """Start and frames of a search over the autoencoder's latents, where an adapter acts.

    Args:
        frames: [B, T, 3, H, W] in [0, 1].
        codec: of the reasoner.
        reach: [B] largest change of a latent, in standard deviations.
        draw: for the starting point.
    """
    z = codec.encode(frames)
    start = [0.3 * (2 * torch.rand(z[:, :, 1:].shape, generator=draw) - 1)]

    def shown(at: Sequence[Tensor]) -> Tensor:
        later = z[:, :, 1:] + at[0] * reach.view(-1, 1, 1, 1, 1)
        made = codec.decode(torch.cat([z[:, :, :1], later], 2))
        return torch.cat([frames[:, :1], made[:, 1:]], 1)

    return start, shown


def _drawn_out(coarse: Tensor, t: int) -> Tensor:
    """[B, 3, C, 8, 8] -> [B, T, C, 32, 32], linear between three times and 8 x 8 places."""
    b, _, c = coarse.shape[:3]
    fine = F.interpolate(
        coarse.permute(0, 2, 1, 3, 4), size=(t, 32, 32), mode="trilinear", align_corners=True
    )
    return fine.permute(0, 2, 1, 3, 4).reshape(b, t, c, 32, 32)


def _warped(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames [B, T, 3, H, W] sampled at places moved by flow [B, T, 2, H, W], in pixels."""
    b, t, c, h, w = frames.shape
    axis = torch.linspace(-1, 1, w)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    move = flow.flatten(0, 1) * (2 / (w - 1))
    grid = torch.stack([x + move[:, 0], y + move[:, 1]], -1)
    out = F.grid_sample(
        frames.flatten(0, 1), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return out.view(b, t, c, h, w)
