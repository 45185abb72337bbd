"""What every decoder promises: declared facts are true, pixels in [0, 1], gradient throughout.

A family of your own passes when a subclass with its fixture passes; only members of the protocol
are used.
"""

from __future__ import annotations

import pytest
import torch

from tests.contract.exact import inexact
from vlmteach.decoders.base import Decoder


def latents(decoder: Decoder, frames: int = 3, height: int = 2, width: int = 3) -> torch.Tensor:
    shape = (1, decoder.facts.latent_channels, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def frames_in(decoder: Decoder, latent_frames: int) -> int:
    """T of a clip."""
    return decoder.facts.temporal_stride * (latent_frames - 1) + 1


class DecoderContract:
    @pytest.fixture(scope="class")
    def decoder(self) -> Decoder:
        """A small one in float32 on the CPU."""
        raise NotImplementedError

    @pytest.mark.parametrize(("frames", "height", "width"), [(1, 2, 2), (3, 2, 3)])
    def test_declared_facts_are_true(self, decoder, frames, height, width):
        pixels = decoder.decode(latents(decoder, frames, height, width))
        side = decoder.facts.spatial_stride
        assert pixels.shape == (frames_in(decoder, frames), 3, side * height, side * width)

    def test_pixels_are_float32_in_range_and_the_latents_untouched(self, decoder):
        z0 = latents(decoder)
        before = z0.clone()
        pixels = decoder.decode(z0)
        assert pixels.dtype == torch.float32
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert torch.equal(z0, before)
        assert torch.equal(decoder.decode(z0), pixels)

    def test_some_frames_are_those_of_the_whole_clip(self, decoder):
        z0 = latents(decoder)
        count = frames_in(decoder, 3)
        some = sorted({0, count // 3, count - count // 3})  # 0, 3 and 6 of 9
        torch.testing.assert_close(
            decoder.decode(z0, some), decoder.decode(z0)[some], rtol=0, atol=1e-5
        )

    def test_every_latent_and_every_saturated_pixel_has_a_gradient(self, decoder):
        z0 = latents(decoder).requires_grad_()
        pixels = decoder.decode(z0)
        assert inexact(pixels) == set()
        saturated = (pixels == 0) | (pixels == 1)
        if saturated.any():
            (gradient,) = torch.autograd.grad(pixels[saturated].sum(), z0, retain_graph=True)
            assert gradient.abs().max() > 0
        (gradient,) = torch.autograd.grad(pixels.square().sum(), z0)
        assert (gradient != 0).all()

    @pytest.mark.parametrize("kind", ["none", "beyond", "negative", "descending"])
    def test_frames_outside_the_clip_are_refused(self, decoder, kind):
        count = frames_in(decoder, 3)
        frames = {
            "none": [],
            "beyond": [count],
            "negative": [-1, 2],
            "descending": [count // 2, count // 3],
        }[kind]
        with pytest.raises(ValueError, match=rf"frames: got .*expected .*\[0, {count}\)"):
            decoder.decode(latents(decoder), frames)

    def test_latents_of_another_model_are_refused(self, decoder):
        wrong = torch.zeros(1, decoder.facts.latent_channels + 1, 2, 2, 2)
        with pytest.raises(ValueError, match=r"latents: got shape .*expected"):
            decoder.decode(wrong)
        with pytest.raises(ValueError, match="one clip at a time"):
            decoder.decode(latents(decoder).expand(2, -1, -1, -1, -1))
