"""What every reasoner promises (`vlmteach.reasoners.base`): its declared facts are true.

A family of your own passes when a subclass with its fixture passes; only members of the protocol
are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.contract.exact import inexact
from vlmteach.reasoners.base import Condition, Reasoner
from vlmteach.types import ClipSpec


def conditions(
    reasoner: Reasoner, clip: ClipSpec, ahead: Sequence[str] = ()
) -> Iterator[Condition]:
    """One per kind of instance that the reasoner says it accepts."""
    picture = Image.new("RGB", (clip.width, clip.height), (200, 40, 10))
    if reasoner.facts.accepts_image:
        yield reasoner.encode("a ball rolls", picture, clip, ahead)
    if reasoner.facts.accepts_text_only:
        yield reasoner.encode("a ball rolls", None, clip, ahead)


def latents(reasoner: Reasoner, clip: ClipSpec) -> torch.Tensor:
    return torch.randn(reasoner.latent_shape(clip), generator=torch.Generator().manual_seed(0))


def carriers(reasoner: Reasoner, targets: str) -> dict[str, torch.nn.Module]:
    """The modules that a set of targets names, as peft reads it."""
    wanted = reasoner.lora_targets[targets]

    def carries(name: str) -> bool:
        if isinstance(wanted, str):
            return re.fullmatch(wanted, name) is not None
        return any(name == each or name.endswith(f".{each}") for each in wanted)

    return {name: module for name, module in reasoner.network.named_modules() if carries(name)}


class ReasonerContract:
    @pytest.fixture(scope="class")
    def reasoner(self) -> Reasoner:
        """A small one in float32 on the CPU, loaded for the ladder (800,) and its only rung."""
        raise NotImplementedError

    @pytest.fixture
    def clip(self, reasoner) -> ClipSpec:
        facts = reasoner.facts
        return ClipSpec(
            frames=2 * facts.temporal_stride + 1,
            height=facts.size_multiple,
            width=2 * facts.size_multiple,
            fps=24.0,
        )

    def test_latent_shape_follows_from_the_facts(self, reasoner, clip):
        facts = reasoner.facts
        for frames in (1, facts.temporal_stride + 1, clip.frames):
            _, channels, t, h, w = reasoner.latent_shape(replace(clip, frames=frames))
            assert channels == facts.latent_channels
            assert facts.temporal_stride * (t - 1) + 1 == frames
            assert (facts.spatial_stride * h, facts.spatial_stride * w) == (clip.height, clip.width)

    def test_what_the_facts_forbid_is_refused(self, reasoner, clip):
        facts = reasoner.facts
        half = facts.size_multiple // 2
        forbidden = []
        if facts.temporal_stride > 1:
            forbidden.append(replace(clip, frames=clip.frames + 1))
        if half:
            forbidden.append(replace(clip, height=clip.height + half))
            forbidden.append(replace(clip, width=clip.width + half))
        for bad in forbidden:
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

    def test_encoding_is_the_same_twice_and_without_gradient(self, reasoner, clip):
        told = ("a cube falls", "a ball rolls", "")
        for one, two in zip(
            conditions(reasoner, clip), conditions(reasoner, clip, told), strict=True
        ):
            assert torch.equal(one.text, two.text)
            assert one.text.ndim == 3
            assert not one.text.requires_grad
            if one.first_latent is not None and two.first_latent is not None:
                _, channels, _, h, w = reasoner.latent_shape(clip)
                assert one.first_latent.shape == (1, channels, 1, h, w)
                assert torch.equal(one.first_latent, two.first_latent)
                assert not one.first_latent.requires_grad

    def test_velocity_is_finite_repeatable_and_differentiable(self, reasoner, clip):
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

    def test_velocity_reaches_every_layer_that_can_carry_the_adapter(self, reasoner, clip):
        named = carriers(reasoner, "all_linear").values()
        linears = [module for module in named if isinstance(module, torch.nn.Linear)]
        assert len(linears) == len(named)
        for condition in conditions(reasoner, clip):
            for linear in linears:
                linear.weight.requires_grad_(True)
            u = reasoner.velocity(latents(reasoner, clip), 0.8, condition)
            gradients = torch.autograd.grad(u.square().sum(), [m.weight for m in linears])
            for linear in linears:
                linear.weight.requires_grad_(False)
            assert all(gradient.abs().max() > 0 for gradient in gradients)
            assert inexact(u) == set()

    def test_network_is_frozen(self, reasoner):
        assert not any(p.requires_grad for p in reasoner.network.parameters())
        assert not any(module.training for module in reasoner.network.modules())

    def test_imposing_is_idempotent_and_changes_the_first_frame_only(self, reasoner, clip):
        z0 = latents(reasoner, clip)
        for condition in conditions(reasoner, clip):
            imposed = reasoner.impose(z0, condition)
            assert imposed.shape == z0.shape
            assert imposed.dtype == z0.dtype
            assert torch.equal(reasoner.impose(imposed, condition), imposed)
            assert torch.equal(imposed[:, :, 1:], z0[:, :, 1:])
            first = z0[:, :, :1] if condition.first_latent is None else condition.first_latent
            assert torch.equal(imposed[:, :, :1], first)

    def test_every_name_of_targets_means_layers_with_an_original_name(self, reasoner):
        assert set(reasoner.lora_targets) == {
            "attention",
            "self_attention",
            "cross_attention",
            "all_linear",
        }
        for targets in reasoner.lora_targets:
            found = carriers(reasoner, targets)
            assert len(found) == len({reasoner.comfyui_key(name) for name in found}) > 0
        with pytest.raises(ValueError, match=r"got 'no\.such\.layer', expected"):
            reasoner.comfyui_key("no.such.layer")

    def test_decoded_pixels_are_the_clip_in_range(self, reasoner, clip):
        z0 = latents(reasoner, clip).requires_grad_()
        pixels = reasoner.decode(z0)
        assert pixels.shape == (clip.frames, 3, clip.height, clip.width)
        assert pixels.dtype == torch.float32
        assert not pixels.requires_grad
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert pixels.std() > 0.01
        assert torch.equal(pixels, reasoner.decode(z0))

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_full_decoder_is_what_the_clip_is_delivered_through(
        self, reasoner, clip, checkpointing
    ):
        decoder = reasoner.full_decoder(checkpointing=checkpointing)
        for fact in ("latent_channels", "spatial_stride", "temporal_stride"):
            assert getattr(decoder.facts, fact) == getattr(reasoner.facts, fact)
        z0 = latents(reasoner, clip).requires_grad_()
        pixels = decoder.decode(z0)
        torch.testing.assert_close(pixels.detach(), reasoner.decode(z0), rtol=0, atol=1e-5)
        assert pixels.requires_grad

    def test_variant_is_a_function_of_checkpoint_and_rungs(self, reasoner, source):
        first, again = (type(reasoner).variant(source, (800.0,), range(1)) for _ in range(2))
        assert first == again

    @pytest.fixture(scope="class")
    def source(self) -> str:
        """The checkpoint that `reasoner` was loaded from."""
        raise NotImplementedError
