from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.mini.train import autoencoder, loop, surrogate
from vlmteach.decoders.taehv import TaehvDecoder

SMALL = (8, 8, 8, 8)


def test_batched_decoding_is_that_of_the_loaded_file(tmp_path: Path):
    torch.manual_seed(0)
    layers = surrogate.build(SMALL)
    for weight in layers.parameters():
        weight.data += 0.02 * torch.randn_like(weight)  # the blocks start as the identity
    file = tmp_path / "taehv.safetensors"
    save_file({f"decoder.{key}": value for key, value in layers.state_dict().items()}, file)
    decoder = TaehvDecoder.load(file, dtype=torch.float32, device="cpu")
    z = torch.randn(2, autoencoder.CHANNELS, 3, 4, 4)
    ours = surrogate.decode(layers, z)
    assert ours.shape == (2, 9, 3, 32, 32)
    for clip, latents in zip(ours, z, strict=True):
        torch.testing.assert_close(
            decoder.decode(latents[None]), clip.clamp(0, 1), atol=1e-5, rtol=0
        )


def test_a_file_has_the_facts_of_the_autoencoder(tmp_path: Path):
    layers = surrogate.build(SMALL)
    file = tmp_path / "taehv.safetensors"
    save_file({f"decoder.{key}": value for key, value in layers.state_dict().items()}, file)
    facts = TaehvDecoder.load(file, dtype=torch.float32, device="cpu").facts
    config = autoencoder.build(width=8).config
    assert facts.spatial_stride == config.scale_factor_spatial
    assert facts.temporal_stride == config.scale_factor_temporal
    assert facts.latent_channels == config.z_dim


def test_the_shipped_widths_are_lighter_than_the_vae():
    z = torch.randn(1, autoencoder.CHANNELS, 3, 4, 4)
    layers, vae = surrogate.build(), autoencoder.build()
    with torch.no_grad(), FlopCounterMode(display=False) as light:
        surrogate.decode(layers, z)
    with torch.no_grad(), FlopCounterMode(display=False) as full:
        autoencoder.decode(vae, z)
    assert light.get_total_flops() < full.get_total_flops()
    decoders = [layers, vae.decoder]
    light_size, full_size = (sum(p.numel() for p in net.parameters()) for net in decoders)
    assert light_size < full_size


def test_a_step_trains_towards_the_vae_and_leaves_it_alone(tmp_path: Path):
    torch.manual_seed(0)
    vae = autoencoder.build(width=8).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    stage = surrogate.Surrogate(surrogate.build(SMALL), vae, seed=0, steps=2, batch=4)
    z, frames = stage.batch(0)
    assert z.shape == (4, autoencoder.CHANNELS, 3, 4, 4)
    assert frames.shape == (4, 9, 3, 32, 32)
    assert 0 <= frames.min() <= frames.max() <= 1
    again = stage.batch(0)
    assert torch.equal(z, again[0])
    assert torch.equal(frames, again[1])
    start = {key: value.clone() for key, value in stage.average.items()}
    assert loop.train(stage, tmp_path)
    assert any(not torch.equal(stage.average[key], start[key]) for key in start)
    assert all(torch.equal(value, before[key]) for key, value in vae.state_dict().items())
    assert not any(key.startswith("vae") for key in stage.state_dict())
