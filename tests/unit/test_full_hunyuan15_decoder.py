"""HunyuanVideo-1.5's VAE on the reward path: diffusers' own values, with a gradient."""

import pytest
import torch

from vlmteach.builtin.paths import builtin_path
from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.reasoners.hunyuan15_checkpoint import load_parts


@pytest.fixture(scope="module")
def reasoner():
    parts = load_parts(builtin_path("random/hunyuan15"), torch.float32, torch.float32)
    return HunyuanReasoner(parts, device=torch.device("cpu"), accepts="both")


def latents(reasoner, frames=3):
    shape = (1, reasoner.facts.latent_channels, frames, 2, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_values_are_those_of_the_vae(reasoner):
    z0 = latents(reasoner)
    pixels = HunyuanFullDecoder(reasoner.vae).decode(z0)
    torch.testing.assert_close(pixels, reasoner.decode(z0), rtol=0, atol=1e-6)
    assert pixels.std() > 0.05


def test_later_latents_are_neither_decoded_nor_missed(reasoner):
    z0 = latents(reasoner)
    decoder = HunyuanFullDecoder(reasoner.vae)
    early = decoder.decode(z0, [0, 4])
    torch.testing.assert_close(early, decoder.decode(z0)[[0, 4]], rtol=0, atol=1e-5)
    z0 = z0.requires_grad_()
    (gradient,) = torch.autograd.grad(decoder.decode(z0, [4]).sum(), z0)
    assert (gradient[:, :, :2] != 0).any()
    assert (gradient[:, :, 2:] == 0).all()


def test_checkpointing_gives_the_same_gradient():
    gradients = []
    for checkpointing in (False, True):
        parts = load_parts(builtin_path("random/hunyuan15"), torch.float32, torch.float32)
        decoder = HunyuanFullDecoder(parts.vae, checkpointing=checkpointing)
        z0 = torch.randn(1, 32, 2, 2, 2, generator=torch.Generator().manual_seed(1))
        z0.requires_grad_()
        (gradient,) = torch.autograd.grad(decoder.decode(z0).square().sum(), z0)
        gradients.append(gradient)
    assert torch.equal(*gradients)
