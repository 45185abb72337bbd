"""The surrogate decoder: TAEHV's layers and file, a few channels wide, trained against the VAE.

Forward and backward take a third of the VAE decoder's time: about as many operations, in fewer and
larger pieces. A published file holds an encoder too, which no decoding needs; this one has none.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import any_videos
from benchmarks.mini.train.loop import Stage, train
from vlmteach.decoders.taehv_layers import Grow, MemoryBlock, base_layers

STEPS = 6000
BATCH = 8
RATE = 2e-3
WIDTHS = (64, 48, 32, 16)
_TRIM = 3
"""Frames dropped from the start, as in `TaehvDecoder`."""


def build(widths: tuple[int, int, int, int] = WIDTHS) -> nn.Sequential:
    """A fresh decoder for the autoencoder's latents, in the layout of `taew2_1` (patch 1)."""
    layers = base_layers(autoencoder.CHANNELS, widths, 1)
    for layer in layers:
        if isinstance(layer, MemoryBlock):
            last = layer.conv[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)  # each block starts as the identity
    final = layers[-1]
    assert isinstance(final, nn.Conv2d)
    assert final.bias is not None
    nn.init.constant_(final.bias, 0.9)  # the ground's colour
    return layers


def decode(layers: nn.Sequential, z: Tensor) -> Tensor:
    """Normalised latents [B, C, t, h, w] -> unclamped pixels [B, T, 3, H, W].

    What `TaehvDecoder` computes one clip at a time, for a batch.
    """
    batch = z.shape[0]
    x = z.transpose(1, 2).flatten(0, 1)  # [B t, C, h, w]
    for layer in layers:
        if isinstance(layer, MemoryBlock):
            clips = x.unflatten(0, (batch, -1))
            past = torch.cat([torch.zeros_like(clips[:, :1]), clips[:, :-1]], dim=1).flatten(0, 1)
            x = F.relu(layer.conv(torch.cat([x, past], dim=1)) + x)
        elif isinstance(layer, Grow):
            x = layer.conv(x).unflatten(1, (layer.stride, -1)).flatten(0, 1)
        else:
            x = layer(x)
    return x.unflatten(0, (batch, -1))[:, _TRIM:]


class Surrogate(Stage):
    """Weighted squared error against the VAE's frames, on the latents of videos and around them.

    Half of each batch is blended with another video's latents or blurred with noise: an adapter's
    predictions lie off the videos' latents, and there too the surrogate stands for the VAE.
    """

    def __init__(
        self, layers: nn.Sequential, vae: Any, *, seed: int, steps: int, batch: int = BATCH
    ) -> None:
        super().__init__(layers, name="surrogate", seed=seed, steps=steps, rate=RATE)
        self.vae = [vae]  # in a list, so that it is no submodule
        self.count = batch

    @torch.no_grad()
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Normalised latents and the VAE's frames of them, [B, T, 3, H, W] in [0, 1]."""
        videos = any_videos(self.seed, self.name, step, self.count)
        vae = self.vae[0]
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        with quick_arithmetic():
            z = autoencoder.normalised(vae, vae.encode(videos).latent_dist.mode().float())
            quarter = self.count // 4
            blend = torch.rand(quarter, 1, 1, 1, 1, generator=draw)
            blended = z[:quarter] + blend * (z[quarter : 2 * quarter] - z[:quarter])
            level = 0.5 * torch.rand(quarter, 1, 1, 1, 1, generator=draw)
            source = z[quarter : 2 * quarter]
            noisy = source + level * torch.randn(source.shape, generator=draw)
            z = torch.cat([blended, noisy, z[2 * quarter :]])
            frames = autoencoder.decode(vae, autoencoder.denormalised(vae, z))
        return z, (frames.float() / 2 + 0.5).clamp(0, 1).transpose(1, 2)

    def loss(
        self, batch: tuple[Tensor, Tensor], draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted squared error of the decoded frames, with what is logged."""
        z, frames = batch
        with quick_arithmetic():
            made = decode(self.network, z)
        missed = (made.float() - frames).square()
        weight = autoencoder.attention(frames.transpose(1, 2) * 2 - 1).transpose(1, 2)
        clean = missed.detach()[self.count // 2 :].mean()
        return (weight * missed).mean(), {"psnr": autoencoder.psnr(4 * clean)}


def load(out: Path) -> nn.Sequential:
    """The finished surrogate of a recipe's folder, frozen, in float32."""
    tensors = load_file(out / "taehv.safetensors")
    layers = build()
    layers.load_state_dict(
        {key.removeprefix("decoder."): value.float() for key, value in tensors.items()}
    )
    return layers.eval().requires_grad_(False)


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains, writes `taehv.safetensors`."""
    torch.manual_seed(arguments.seed)
    vae = autoencoder.load(arguments.out)
    stage = Surrogate(build(), vae, seed=arguments.seed, steps=arguments.steps or STEPS)
    if not train(stage, arguments.out, minutes=arguments.minutes):
        return
    state = stage.deliver().state_dict()
    tensors = {f"decoder.{key}": value.half().contiguous() for key, value in state.items()}
    save_file(tensors, arguments.out / "taehv.safetensors")
