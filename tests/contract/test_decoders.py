"""What every decoder promises: declared facts are true, pixels in [0, 1], gradient throughout."""

from typing import Any

import pytest
import torch

from vlmteach.builtin.taehv import save_random_taehv
from vlmteach.decoders.full import FullDecoder
from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder
from vlmteach.decoders.taehv import TaehvDecoder


def full_decoder():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(8)
    return FullDecoder(vae)


def full_hunyuan15_decoder():
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
        AutoencoderKLHunyuanVideo15,
    )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels: Any = (4, 8, 16, 32, 64)
        vae = AutoencoderKLHunyuanVideo15(block_out_channels=channels, layers_per_block=1)
    with torch.no_grad():
        vae.decoder.conv_out.conv.weight.mul_(8)
    return HunyuanFullDecoder(vae)


FULL = {"full": full_decoder, "full_hunyuan15": full_hunyuan15_decoder}


@pytest.fixture(params=["taew2_2", "taew2_2_super", "taew2_1", "taehv1_5", "taehv1_5_super", *FULL])
def decoder(request, tmp_path):
    if request.param in FULL:
        return FULL[request.param]()
    path = tmp_path / "taehv.safetensors"
    save_random_taehv(path, variant=request.param)
    return TaehvDecoder.load(path, dtype=torch.float32, device="cpu")


def latents(decoder, frames=3, height=2, width=3):
    shape = (1, decoder.facts.latent_channels, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 2, 2), (3, 2, 3)])
def test_declared_facts_are_true(decoder, frames, height, width):
    pixels = decoder.decode(latents(decoder, frames, height, width))
    facts = decoder.facts
    assert pixels.shape == (
        facts.temporal_stride * (frames - 1) + 1,
        3,
        facts.spatial_stride * height,
        facts.spatial_stride * width,
    )


def test_pixels_are_float32_in_range_and_the_latents_untouched(decoder):
    z0 = latents(decoder)
    before = z0.clone()
    pixels = decoder.decode(z0)
    assert pixels.dtype == torch.float32
    assert 0 == pixels.min() < pixels.max() == 1
    assert torch.equal(z0, before)
    assert torch.equal(decoder.decode(z0), pixels)


def test_some_frames_are_those_of_the_whole_clip(decoder):
    z0 = latents(decoder)
    torch.testing.assert_close(
        decoder.decode(z0, [0, 3, 6]), decoder.decode(z0)[[0, 3, 6]], rtol=0, atol=1e-5
    )


def test_every_latent_and_every_saturated_pixel_has_a_gradient(decoder):
    z0 = latents(decoder).requires_grad_()
    pixels = decoder.decode(z0)
    saturated = (pixels == 0) | (pixels == 1)
    assert saturated.any()
    (gradient,) = torch.autograd.grad(pixels[saturated].sum(), z0, retain_graph=True)
    assert gradient.abs().max() > 0
    (gradient,) = torch.autograd.grad(pixels.square().sum(), z0)
    assert (gradient != 0).all()


@pytest.mark.parametrize("frames", [[], [9], [-1, 2], [4, 2]], ids=str)
def test_frames_outside_the_clip_are_refused(decoder, frames):
    with pytest.raises(ValueError, match=r"frames: got .*expected .*\[0, 9\)"):
        decoder.decode(latents(decoder), frames)


def test_latents_of_another_model_are_refused(decoder):
    wrong = torch.zeros(1, decoder.facts.latent_channels + 1, 2, 2, 2)
    with pytest.raises(ValueError, match=r"latents: got shape .*expected .*reasoner's VAE"):
        decoder.decode(wrong)
    with pytest.raises(ValueError, match="one clip at a time"):
        decoder.decode(latents(decoder).expand(2, -1, -1, -1, -1))
