"""Frames to the patches a Qwen-VL vision tower reads, in torch alone and differentiable.

The steps and their order are those of transformers' Qwen2-VL and Qwen3-VL processors, whose video
side needs torchvision; the tests compare the two where torchvision imports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """What a checkpoint's preprocessor file says of pixels."""

    patch: int
    """Side of a spatial patch in pixels."""
    merge: int
    """Patches merged along H and along W into one token."""
    temporal: int
    """Frames in one temporal patch."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min_pixels: int
    """Smallest H x W of an image; smaller ones are enlarged to it. Videos are not."""
    max_pixels: int
    """Largest H x W of an image. A video's frames have a budget of their own."""

    @property
    def factor(self) -> int:
        """Height and width must be multiples of this."""
        return self.patch * self.merge


def smart_size(
    height: int, width: int, *, factor: int, max_pixels: int, min_pixels: int = 0
) -> tuple[int, int]:
    """The size (H, W) a frame is resized to: multiples of `factor` within a pixel budget.

    Sides are rounded to the nearest multiple; if that leaves the budget, both are scaled by one
    number and rounded towards it. A frame that fits and whose sides are multiples is unchanged.
    The rule of the official processors, with the budget per frame.

    Raises:
        ValueError: a side is below 1 pixel, the aspect ratio is over 200 (the official limit), or
            the budget does not hold one block of factor x factor.
    """
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise ValueError(
            f"frame size: got {height} x {width} pixels, expected sides of at least 1 and an "
            "aspect ratio of at most 200"
        )
    if max_pixels < factor * factor:
        raise ValueError(
            f"pixel budget: got {max_pixels}, expected at least {factor * factor} "
            f"({factor} x {factor}); raise frame_pixels"
        )
    h = max(factor, round(height / factor) * factor)
    w = max(factor, round(width / factor) * factor)
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h = max(factor, math.floor(height / shrink / factor) * factor)
        w = max(factor, math.floor(width / shrink / factor) * factor)
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h = math.ceil(height * grow / factor) * factor
        w = math.ceil(width * grow / factor) * factor
    return h, w


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing, [K, 3, H, W] in [0, 1] -> [K, 3, H', W'] in [0, 1].

    The same tensor when the size is already right. Two matrix products: the backward pass of
    torch's own antialiased bicubic adds in whatever order a GPU happens to, and has no
    deterministic form. Equal to it to float32's rounding. Bicubic overshoots on floats what the
    official uint8 path clips, so the result is clamped (straight through).
    """
    from vlmteach.clamp import straight_through_clamp

    if tuple(frames.shape[-2:]) == size:
        return frames
    down, right = (bicubic(*sides, frames) for sides in zip(frames.shape[-2:], size, strict=True))
    return straight_through_clamp(down @ (frames @ right.T))


def bicubic(source: int, target: int, like: Tensor) -> Tensor:
    """[target, source] weights of antialiased bicubic along one axis; rows sum to 1.

    Keys' kernel with a = -1/2, as Pillow and torch have it, widened where the axis is shrunk; what
    would lie outside the picture is left out. Rounded as torch rounds it, step by step.

    Args:
        like: whose dtype and device they get.
    """
    import torch

    scale = source / target
    targets, sources = (
        torch.arange(count, dtype=like.dtype, device=like.device) for count in (target, source)
    )
    # How far each source pixel is from where the target's centre falls.
    x = (sources - (targets[:, None] + 0.5) * scale + 0.5).abs() * (1 / max(scale, 1.0))
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdim=True)


def patchify(frames: Tensor, spec: PatchSpec) -> Tensor:
    """[K, C, H, W] -> [N, C * temporal * patch * patch], one row per patch.

    The last frame is repeated up to a whole temporal patch. Rows run over t, then over blocks of
    merge x merge patches, then inside the block; columns over C, time, y, x.
    """
    import torch

    k, c, height, width = frames.shape
    if missing := -k % spec.temporal:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        k += missing
    p, m = spec.patch, spec.merge
    t, h, w = k // spec.temporal, height // p, width // p
    # [t, temporal, C, h/m, m, p, w/m, m, p] -> [t, h/m, w/m, m, m, C, temporal, p, p]
    blocks = frames.reshape(t, spec.temporal, c, h // m, m, p, w // m, m, p)
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(t * h * w, c * spec.temporal * p * p)


def grid(frames: int, size: tuple[int, int], spec: PatchSpec) -> tuple[int, int, int]:
    """Patches along (t, h, w) of K frames of H x W pixels."""
    return -(-frames // spec.temporal), size[0] // spec.patch, size[1] // spec.patch


def patches(frames: Tensor, size: tuple[int, int], spec: PatchSpec) -> Tensor:
    """[K, 3, H, W] in [0, 1] -> [N, D] normalised patches of the frames at `size`.

    float32, or float64 where the frames are; differentiable in `frames`.
    """
    import torch

    frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
    frames = resize(frames, size)
    mean = frames.new_tensor(spec.mean).view(-1, 1, 1)
    std = frames.new_tensor(spec.std).view(-1, 1, 1)
    return patchify((frames - mean) / std, spec)
