"""Videos whose acting colour is none of the world's, asked about without its name.

The train split pairs each colour with three marks of five, so a teacher learns "pink, hence so
high" where it should compare the water with the mark, and is wrong about every pair kept back.
Colours without a name belong to no split; of them only the mark tells how high is right.
"""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from benchmarks.mini.train.teacher.dense_losses import colour_shares
from vlmteach.mini.world import COLOURS
from vlmteach.mini.world.draw import GROUND

_APART = 0.3
"""Least distance of a colour without a name from the ground and from every named one."""
_MIXED = 0.15
"""Distance from the line between ground and colour up to which a pixel is a mixture of both."""


def recoloured(video: Tensor, colour: str, draw: torch.Generator) -> Tensor:
    """A video [T, 3, H, W] in 0..1 in another hue where it shows a colour, mixtures in part."""
    named, ground = torch.tensor(COLOURS[colour]), torch.from_numpy(GROUND)
    apart = named - ground
    away = video.movedim(1, -1) - ground  # [T, H, W, 3]
    along = (away @ apart / apart.square().sum()).clamp(0, 1)
    mixed = (away - along[..., None] * apart).norm(dim=-1) < _MIXED
    sure = colour_shares(video[None])[0, ..., 1 + list(COLOURS).index(colour)]
    share = torch.where(mixed, along, sure)[:, None]
    return (video + share * (_nameless(draw) - named)[:, None, None]).clamp(0, 1)


def _nameless(draw: torch.Generator) -> Tensor:
    """A random colour, [3]."""
    named = torch.tensor([*COLOURS.values(), GROUND.tolist()])
    while True:
        hue, saturation, value = torch.rand(3, generator=draw).tolist()
        other = torch.tensor(colorsys.hsv_to_rgb(hue, 0.4 + 0.6 * saturation, 0.4 + 0.6 * value))
        if (named - other).norm(dim=1).min() >= _APART:
            return other


def unnamed(text: str, colour: str) -> str:
    """A query without the colour's name."""
    return text.replace(f" {colour}", "")
