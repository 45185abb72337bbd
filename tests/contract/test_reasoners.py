"""What every reasoner promises (`vlmteach.reasoners.base`): its declared facts are true."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
from vlmteach.builtin.wan import save_random_wan, save_random_wan_a14b
from vlmteach.reasoners.base import Reasoner
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.reasoners.wan_a14b import WanA14BReasoner
from vlmteach.types import ClipSpec


def load_wan(folder: Path, accepts) -> Reasoner:
    save_random_wan(folder)
    return WanReasoner.load(
        folder, dtype=torch.float32, device=torch.device("cpu"), accepts=accepts
    )


def load_hunyuan15(folder: Path, accepts) -> Reasoner:
    save_random_hunyuan15(folder)
    return HunyuanReasoner.load(
        folder, dtype=torch.float32, device=torch.device("cpu"), accepts=accepts
    )


def load_wan_a14b(folder: Path, accepts) -> Reasoner:
    save_random_wan_a14b(folder, image=accepts != "text")
    return WanA14BReasoner.load(
        folder,
        carrier="low_noise",  # the one that the levels of these tests are evaluated by
        dtype=torch.float32,
        device=torch.device("cpu"),
        accepts=accepts,
    )


LOADERS = {"wan": load_wan, "wan_a14b": load_wan_a14b, "hunyuan15": load_hunyuan15}
"""Every family, with a small checkpoint of its own; a new one joins here."""


@pytest.fixture(scope="module", params=[(f, a) for f in LOADERS for a in ("image", "text", "both")])
def reasoner(request, tmp_path_factory) -> Reasoner:
    family, accepts = request.param
    return LOADERS[family](tmp_path_factory.mktemp(family), accepts)


@pytest.fixture
def clip(reasoner) -> ClipSpec:
    facts = reasoner.facts
    return ClipSpec(
        frames=2 * facts.temporal_stride + 1,
        height=facts.size_multiple,
        width=2 * facts.size_multiple,
        fps=24.0,
    )


def conditions(reasoner: Reasoner, clip: ClipSpec):
    """One per kind of instance that the reasoner says it accepts."""
    picture = Image.new("RGB", (clip.width, clip.height), (200, 40, 10))
    if reasoner.facts.accepts_image:
        yield reasoner.encode("a ball rolls", picture, clip)
    if reasoner.facts.accepts_text_only:
        yield reasoner.encode("a ball rolls", None, clip)


def latents(reasoner, clip, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(reasoner.latent_shape(clip), generator=generator)


def test_latent_shape_follows_from_the_facts(reasoner, clip):
    facts = reasoner.facts
    for frames in (1, facts.temporal_stride + 1, clip.frames):
        _, channels, t, h, w = reasoner.latent_shape(replace(clip, frames=frames))
        assert channels == facts.latent_channels
        assert facts.temporal_stride * (t - 1) + 1 == frames
        assert (facts.spatial_stride * h, facts.spatial_stride * w) == (clip.height, clip.width)


def test_what_the_facts_forbid_is_refused(reasoner, clip):
    facts = reasoner.facts
    half = facts.size_multiple // 2
    for bad in (
        replace(clip, frames=clip.frames + 1),
        replace(clip, height=clip.height + half),
        replace(clip, width=clip.width + half),
    ):
        with pytest.raises(ValueError, match=r"got .*expected .*;"):
            reasoner.latent_shape(bad)
    picture = Image.new("RGB", (clip.width, clip.height))
    for frame, accepted in ((picture, facts.accepts_image), (None, facts.accepts_text_only)):
        if accepted:
            held = frame is not None and facts.holds_first_frame
            assert (reasoner.encode("p", frame, clip).first_latent is not None) == held
        else:
            with pytest.raises(ValueError, match=r"got .*expected .*;"):
                reasoner.encode("p", frame, clip)


def test_encoding_is_the_same_twice_and_without_gradient(reasoner, clip):
    for one, two in zip(conditions(reasoner, clip), conditions(reasoner, clip), strict=True):
        assert torch.equal(one.text, two.text)
        assert one.text.ndim == 3
        assert not one.text.requires_grad
        if one.first_latent is not None and two.first_latent is not None:
            _, channels, _, h, w = reasoner.latent_shape(clip)
            assert one.first_latent.shape == (1, channels, 1, h, w)
            assert torch.equal(one.first_latent, two.first_latent)
            assert not one.first_latent.requires_grad


def test_velocity_is_finite_repeatable_and_differentiable(reasoner, clip):
    for condition in conditions(reasoner, clip):
        z = latents(reasoner, clip).requires_grad_()
        u = reasoner.velocity(z, 0.8, condition)
        assert u.shape == z.shape
        assert u.dtype == z.dtype
        assert u.isfinite().all()
        assert torch.equal(u, reasoner.velocity(z, 0.8, condition))
        (gradient,) = torch.autograd.grad(u.square().mean(), z)
        free = slice(None) if condition.first_latent is None else slice(1, None)
        assert (gradient[:, :, free] != 0).all()
        # Along the gradient itself, so that the change stands out of float32's rounding.
        direction, step = gradient / gradient.norm(), 1e-1
        with torch.no_grad():
            ahead = reasoner.velocity(z + step * direction, 0.8, condition).square().mean()
            behind = reasoner.velocity(z - step * direction, 0.8, condition).square().mean()
        slope = (ahead - behind) / (2 * step)
        torch.testing.assert_close(slope, gradient.norm(), rtol=1e-2, atol=0)


def test_velocity_reaches_every_layer_that_can_carry_the_adapter(reasoner, clip):
    targets = reasoner.lora_targets["all_linear"]
    named = reasoner.network.named_modules()
    linears = [module for name, module in named if re.fullmatch(targets, name)]
    assert len(linears) > 10
    assert all(isinstance(module, torch.nn.Linear) for module in linears)
    for condition in conditions(reasoner, clip):
        for linear in linears:
            linear.weight.requires_grad_(True)
        u = reasoner.velocity(latents(reasoner, clip), 0.8, condition)
        gradients = torch.autograd.grad(u.square().sum(), [m.weight for m in linears])
        for linear in linears:
            linear.weight.requires_grad_(False)
        assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_imposing_is_idempotent_and_changes_the_first_frame_only(reasoner, clip):
    z0 = latents(reasoner, clip)
    for condition in conditions(reasoner, clip):
        imposed = reasoner.impose(z0, condition)
        assert imposed.shape == z0.shape
        assert imposed.dtype == z0.dtype
        assert torch.equal(reasoner.impose(imposed, condition), imposed)
        assert torch.equal(imposed[:, :, 1:], z0[:, :, 1:])
        first = z0[:, :, :1] if condition.first_latent is None else condition.first_latent
        assert torch.equal(imposed[:, :, :1], first)


def test_every_name_of_targets_means_layers_with_an_original_name(reasoner):
    assert set(reasoner.lora_targets) == {
        "attention",
        "self_attention",
        "cross_attention",
        "all_linear",
    }
    names = [name for name, _ in reasoner.network.named_modules()]
    for targets in reasoner.lora_targets.values():
        found = [name for name in names if re.fullmatch(targets, name)]
        assert len(found) == len({reasoner.comfyui_key(name) for name in found}) > 0
    with pytest.raises(ValueError, match=r"got 'proj_out', expected"):
        reasoner.comfyui_key("proj_out")


def test_decoded_pixels_are_the_clip_in_range(reasoner, clip):
    z0 = latents(reasoner, clip).requires_grad_()
    pixels = reasoner.decode(z0)
    assert pixels.shape == (clip.frames, 3, clip.height, clip.width)
    assert pixels.dtype == torch.float32
    assert not pixels.requires_grad
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert pixels.std() > 0.01
    assert torch.equal(pixels, reasoner.decode(z0))
