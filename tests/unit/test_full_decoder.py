"""The VAE as a differentiable decoder: parity with `vae.decode`, causality, gradients."""

import inspect

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from vlmteach.decoders.full import FullDecoder
from vlmteach.decoders.taehv_latents import LATENT_DEVIATION, LATENT_MEAN

WAN_2_2 = {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1, 0.2, -0.3, 0.0],
    "latents_std": [0.5, 1.0, 2.0, 0.7],
}
WAN_2_1 = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


@pytest.fixture(params=[WAN_2_2, WAN_2_1], ids=["wan2.2", "wan2.1"])
def vae(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLWan(**request.param)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(4)  # so that some pixels saturate
    return vae.double()


def latents(decoder, frames=3, seed=0):
    shape = (1, decoder.facts.latent_channels, frames, 2, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vae_latents(vae, z0):
    mean = torch.tensor(vae.config.latents_mean, dtype=z0.dtype).view(1, -1, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std, dtype=z0.dtype).view(1, -1, 1, 1, 1)
    return z0 * deviation + mean


def test_equals_vae_decode(vae):
    decoder = FullDecoder(vae)
    z0 = latents(decoder)
    expected = vae.decode(vae_latents(vae, z0)).sample[0].transpose(0, 1) * 0.5 + 0.5
    pixels = decoder.decode(z0)
    assert torch.equal(pixels, expected)
    assert 0.01 < ((pixels == 0) | (pixels == 1)).double().mean() < 0.6


def test_some_frames_decode_no_latent_beyond_them(vae):
    decoder = FullDecoder(vae)
    calls = []
    vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    whole = decoder.decode(latents(decoder))
    for frames, needed in (([0], 1), ([0, 4], 2), ([4, 5, 5], 3)):
        calls.clear()
        some = decoder.decode(latents(decoder), frames)
        assert len(calls) == needed
        torch.testing.assert_close(some, whole[frames], rtol=0, atol=1e-12)


def test_saturated_pixels_keep_their_gradient(vae):
    decoder = FullDecoder(vae)
    gradients = []
    for bias in (9.0, -9.0):
        with torch.no_grad():
            vae.decoder.conv_out.bias.fill_(bias * 10)
        z0 = latents(decoder).requires_grad_()
        pixels = decoder.decode(z0)
        assert (pixels == (1 if bias > 0 else 0)).all()
        weight = torch.linspace(-1, 1, pixels.numel(), dtype=pixels.dtype).view_as(pixels)
        gradients += torch.autograd.grad((pixels * weight).sum(), z0)
        plain = vae.decode(vae_latents(vae, z0)).sample
        (stopped,) = torch.autograd.grad(plain.sum(), z0)
        assert (stopped == 0).all()  # what the clamp in vae.decode does
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_equals_finite_differences(vae):
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(0.05)  # far from the clamp
    decoder = FullDecoder(vae)
    z0, direction = latents(decoder), latents(decoder, seed=1)

    def loss(z):
        pixels = decoder.decode(z, [0, 4, 8])
        assert 0 < pixels.min() < pixels.max() < 1
        return pixels.square().sum()

    z = z0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    # The VAE upsamples in float32, so a step must stand well above its rounding.
    step = 1e-3
    numeric = (loss(z0 + step * direction) - loss(z0 - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=0)


def test_checkpointing_changes_no_bit_of_value_or_gradient(vae):
    results = []
    for checkpointing in (False, True):
        decoder = FullDecoder(vae, checkpointing=checkpointing)
        z0 = latents(decoder).requires_grad_()
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x
        ):
            pixels = decoder.decode(z0)
        (gradient,) = torch.autograd.grad(pixels.square().sum(), z0)
        results.append((pixels, gradient, sum(kept)))
    (plain, plain_gradient, plain_kept), (again, again_gradient, again_kept) = results
    assert torch.equal(plain, again)
    assert torch.equal(plain_gradient, again_gradient)
    assert again_kept < plain_kept / 2


def test_freezes_the_vae(vae):
    FullDecoder(vae.train())
    assert not vae.training
    assert not any(p.requires_grad for p in vae.parameters())


def test_latent_statistics_are_those_of_wan_2_1s_vae():
    defaults = inspect.signature(AutoencoderKLWan.__init__).parameters
    assert list(LATENT_MEAN[16]) == defaults["latents_mean"].default
    assert list(LATENT_DEVIATION[16]) == defaults["latents_std"].default
    assert len(LATENT_MEAN[48]) == len(LATENT_DEVIATION[48]) == 48
