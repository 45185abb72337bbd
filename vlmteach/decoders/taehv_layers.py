"""The layers of TAEHV's decoders, each of which can run on some frames only.

Inside the decoder frames stand on the batch axis: x is [frames, C, H, W]. A layer that mixes frames
says which input frames a set of output frames needs (`needs`), and computes those outputs from
those inputs alone; every other layer treats frames one by one. Frames are named by their index in
time, and lists of them ascend.

Attribute names (`conv`, and the positions inside it) are those of the published files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps H and W."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)


def take(x: Tensor, positions: Sequence[int]) -> Tensor:
    """Rows of `x` at ascending positions; a view where they are consecutive."""
    first, last = positions[0], positions[-1]
    if last - first + 1 == len(positions):
        return x[first : last + 1]
    return x.index_select(0, torch.tensor(positions, device=x.device))


class SoftLimit(nn.Module):
    """3 tanh(x / 3): keeps stray latents within [-3, 3]."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; values are squeezed into (-3, 3)."""
        return torch.tanh(x / 3) * 3


class TimeLayer(nn.Module):
    """A layer that mixes frames."""

    def needs(self, wanted: Sequence[int]) -> list[int]:
        """The input frames that the output frames `wanted` are made from."""
        raise NotImplementedError

    def forward(self, x: Tensor, have: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Input frames `have` (at least `needs(wanted)`) -> output frames `wanted`."""
        raise NotImplementedError


class Memory(TimeLayer):
    """Sees each frame with the one before it, zeros before the first; keeps the width."""

    conv: nn.Sequential

    def needs(self, wanted: Sequence[int]) -> list[int]:
        """The frames that the wanted ones are made of: each, and the one before it."""
        return sorted({s for frame in wanted for s in (frame - 1, frame) if s >= 0})

    def with_past(
        self, x: Tensor, have: Sequence[int], wanted: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """-> the wanted frames [S, C, H, W], and the same beside their past [S, 2 C, H, W]."""
        at = {frame: position for position, frame in enumerate(have)}
        now = take(x, [at[frame] for frame in wanted])
        before = [at[frame - 1] for frame in wanted if frame > 0]
        past = [take(x, before)] if before else []
        if wanted[0] == 0:
            past.insert(0, torch.zeros_like(x[:1]))
        return now, torch.cat([now, torch.cat(past) if len(past) > 1 else past[0]], dim=1)


class MemoryBlock(Memory):
    """The base decoder's block: three 3x3 convolutions and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv3x3(2 * width, width),
            nn.ReLU(inplace=True),
            conv3x3(width, width),
            nn.ReLU(inplace=True),
            conv3x3(width, width),
        )

    def forward(self, x: Tensor, have: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """[len(have), C, H, W] -> [len(wanted), C', H, W]."""
        now, both = self.with_past(x, have, wanted)
        # In place on the last convolution's output, which the backward pass does not need.
        return self.conv(both).add_(now).relu_()


class SuperMemoryBlock(Memory):
    """The super decoder's block: 7x7 depthwise, 1x1 to twice the channels and back, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 7, padding=3, groups=2 * width, bias=False),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )

    def forward(self, x: Tensor, have: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """[len(have), C, H, W] -> [len(wanted), C, H, W]."""
        now, both = self.with_past(x, have, wanted)
        return self.conv(both).add_(now)


class Grow(TimeLayer):
    """Each frame becomes `stride` frames: a 1x1 convolution to stride x C channels, split up.

    Output frame s is channel group s % stride of input frame s // stride; only the groups that are
    wanted are computed.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def needs(self, wanted: Sequence[int]) -> list[int]:
        """The frames that the wanted ones grow from."""
        return sorted({frame // self.stride for frame in wanted})

    def forward(self, x: Tensor, have: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """[len(have), C, H, W] -> [len(wanted), C, H, W]: each frame becomes `stride` frames."""
        at = {frame: position for position, frame in enumerate(have)}
        kernels = self.conv.weight.chunk(self.stride)  # stride x [C, C, 1, 1]
        grown: list[Tensor] = []
        order: list[int] = []
        for group, kernel in enumerate(kernels):
            frames = [frame for frame in wanted if frame % self.stride == group]
            if frames:
                grown.append(F.conv2d(take(x, [at[f // self.stride] for f in frames]), kernel))
                order += frames
        if len(grown) == 1:
            return grown[0]
        place = {frame: position for position, frame in enumerate(order)}
        return torch.cat(grown)[torch.tensor([place[f] for f in wanted], device=x.device)]


def base_layers(latent_channels: int, widths: Sequence[int], patch: int) -> nn.Sequential:
    """`taew2_1`, `taew2_2` and LightX2V's `lighttae*`: 23 layers at the files' indices."""
    layers: list[nn.Module] = [SoftLimit(), conv3x3(latent_channels, widths[0]), nn.ReLU(True)]
    for width, following, stride in zip(widths[:-1], widths[1:], TIME_STRIDES, strict=True):
        layers += [MemoryBlock(width), MemoryBlock(width), MemoryBlock(width)]
        layers += [nn.Upsample(scale_factor=2), Grow(width, stride)]
        layers += [conv3x3(width, following, bias=False)]
    layers += [nn.ReLU(True), conv3x3(widths[-1], 3 * patch**2)]
    return nn.Sequential(*layers)


def super_layers(latent_channels: int, widths: Sequence[int], patch: int) -> nn.Sequential:
    """`taew2_2_super`: 23 layers at the file's indices; upsamples by pixel shuffle."""
    layers: list[nn.Module] = [nn.Conv2d(latent_channels, widths[0], 1, bias=False)]
    for width, following, stride in zip(widths[:-1], widths[1:], TIME_STRIDES, strict=True):
        layers += [SuperMemoryBlock(width), SuperMemoryBlock(width), SuperMemoryBlock(width)]
        layers += [conv3x3(width, 4 * following), nn.ReLU(True), nn.PixelShuffle(2)]
        layers += [Grow(following, stride)]
    layers += [conv3x3(widths[-1], 3 * patch**2)]
    return nn.Sequential(*layers)


TIME_STRIDES = (1, 2, 2)
"""Frames per frame at each of the three stages: four clip frames to a latent frame."""


def run(layers: nn.Sequential, x: Tensor, wanted: Sequence[int]) -> Tensor:
    """Latent frames [t, C, h, w] -> the decoder's output frames `wanted` [len(wanted), ...].

    Walks the layers backwards to find which frames each must give, then forwards to compute them.
    """
    plan = [list(wanted)]
    for layer in reversed(layers):
        plan.insert(0, layer.needs(plan[0]) if isinstance(layer, TimeLayer) else plan[0])
    x = take(x, plan[0])
    for layer, have, frames in zip(layers, plan[:-1], plan[1:], strict=True):
        x = layer(x, have, frames) if isinstance(layer, TimeLayer) else layer(x)
    return x
