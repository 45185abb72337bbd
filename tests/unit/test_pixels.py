"""Frames to patches: sizes, order, values and gradients."""

import random

import pytest
import torch
import torch.nn.functional as F

from tests.contract.exact import inexact
from vlmteach.clamp import straight_through_clamp
from vlmteach.teachers.pixels import (
    PatchSpec,
    grid,
    patches,
    patchify,
    resize,
    smart_size,
)

QWEN3 = PatchSpec(
    patch=16, merge=2, temporal=2, mean=(0.5,) * 3, std=(0.5,) * 3, min_pixels=1, max_pixels=1 << 20
)


def test_smart_size_is_the_official_rule():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    draw = random.Random(0)
    for _ in range(2000):
        factor = draw.choice([28, 32])
        height, width = draw.randrange(factor, 1500), draw.randrange(factor, 1500)
        low = draw.randrange(1, 50_000)
        high = low + draw.randrange(4 * factor * factor, 500_000)
        assert smart_size(
            height, width, factor=factor, max_pixels=high, min_pixels=low
        ) == smart_resize(height, width, factor, min_pixels=low, max_pixels=high)


def test_smart_size_leaves_a_frame_that_fits():
    assert smart_size(448, 640, factor=32, max_pixels=448 * 640) == (448, 640)
    assert smart_size(448, 640, factor=32, max_pixels=448 * 640 - 1) == (416, 608)
    assert smart_size(20, 20, factor=32, max_pixels=1024) == (32, 32)


@pytest.mark.parametrize(
    ("height", "width", "budget", "message"),
    [(1, 201, 1 << 20, "aspect"), (0, 10, 1 << 20, "sides"), (64, 64, 1023, "frame_pixels")],
)
def test_smart_size_refuses(height, width, budget, message):
    with pytest.raises(ValueError, match=message):
        smart_size(height, width, factor=32, max_pixels=budget)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_patchify_puts_each_pixel_where_the_tower_reads_it(count):
    frames = torch.rand(count, 3, 64, 96)
    rows = patchify(frames, QWEN3)
    t, h, w = grid(count, (64, 96), QWEN3)
    assert (t, h, w) == (-(-count // 2), 4, 6)
    assert rows.shape == (t * h * w, 3 * 2 * 16 * 16)
    # Blocks of 2 x 2 patches, row by row; four patches of a block follow one another.
    row = 0
    for ti in range(t):
        for bi in range(h // 2):
            for bj in range(w // 2):
                for i in (2 * bi, 2 * bi + 1):
                    for j in (2 * bj, 2 * bj + 1):
                        pair = [min(2 * ti + k, count - 1) for k in (0, 1)]
                        patch = frames[pair, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
                        assert torch.equal(rows[row], patch.transpose(0, 1).flatten())
                        row += 1


def test_clamp_passes_the_gradient_of_saturated_values():
    x = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5], requires_grad=True)
    y = straight_through_clamp(x)
    assert torch.equal(y, x.clamp(0, 1))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1] * 5


def test_resize_keeps_range_and_identity():
    generator = torch.Generator().manual_seed(0)
    frames = (torch.rand(2, 3, 40, 50, generator=generator) > 0.5).float()
    assert resize(frames, (40, 50)) is frames
    small = resize(frames, (32, 64))
    assert small.shape == (2, 3, 32, 64)
    assert 0 <= small.min() <= small.max() <= 1


SIZES = [((40, 50), (32, 64)), ((33, 57), (7, 101)), ((9, 5), (64, 32)), ((64, 48), (64, 96))]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_resize_is_torchs_antialiased_bicubic_by_matrices(source, target, dtype, close):
    frames = torch.rand(
        (2, 3, *source), dtype=dtype, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    theirs = F.interpolate(frames, size=target, mode="bicubic", antialias=True)
    theirs = straight_through_clamp(theirs)
    ours = resize(frames, target)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=close)
    weights = torch.linspace(-1, 1, ours.numel(), dtype=dtype).view_as(ours)
    gradients = [torch.autograd.grad((x * weights).sum(), frames)[0] for x in (ours, theirs)]
    largest = gradients[1].abs().max().item()
    torch.testing.assert_close(*gradients, rtol=0, atol=2 * close * largest)
    assert inexact(theirs) == {"UpsampleBicubic2DAa"}  # what it replaces
    assert inexact(resize(frames, target)) == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_patches_are_normalised_and_differentiable(dtype):
    frames = torch.ones(3, 3, 64, 64, dtype=dtype, requires_grad=True)
    rows = patches(frames, (32, 32), QWEN3)
    assert rows.shape == (8, 3 * 2 * 16 * 16)
    assert rows.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    torch.testing.assert_close(rows, torch.ones_like(rows))
    rows.sum().backward()
    assert frames.grad is not None
    by_frame = frames.grad.float().sum((1, 2, 3))
    # 1 / std per value of the smaller frame; the last frame also fills the temporal patch.
    expected = 2 * 3 * 32 * 32 * torch.tensor([1.0, 1.0, 2.0])
    torch.testing.assert_close(by_frame, expected, rtol=1e-2, atol=0)
