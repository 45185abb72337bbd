"""The autoencoder: `AutoencoderKLWan`, 8 x 8 pixels and 4 frames to a latent cell of 48 channels.

It has the kind and the channels of Wan 2.2's VAE with one halving less, so that a surrogate in
TAEHV's layout, whose three stages double the picture three times, has the same stride.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from torch import Tensor

from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import any_videos
from benchmarks.mini.train.loop import Stage, train
from vlmteach.mini.world.draw import GROUND

STEPS = 3600
BATCH = 8
RATE = 2e-3
CHANNELS = 48
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_KL = 1e-4
"""Weight of the posterior's divergence: enough for smooth latents, too little to blur."""
_ABSOLUTE = 0.1
"""Weight of the absolute error beside the squared one: keeps edges crisp."""


def build(width: int = 24) -> Any:
    """A fresh autoencoder; `width` is that of its widest picture, a multiple of 4."""
    return AutoencoderKLWan(
        base_dim=width,
        decoder_base_dim=width,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )


def decode(vae: Any, z: Tensor) -> Tensor:
    """The VAE's latents [B, C, t, h, w] -> pixels [B, 3, T, H, W] in [-1, 1], without its clamp,
    which would stop the gradient of pixels that overshoot."""
    vae.clear_cache()
    x = vae.post_quant_conv(z)
    frames = []
    for index in range(x.shape[2]):
        vae._conv_idx = [0]
        frames.append(
            vae.decoder(
                x[:, :, index : index + 1],
                feat_cache=vae._feat_map,
                feat_idx=vae._conv_idx,
                first_chunk=index == 0,
            )
        )
    vae.clear_cache()
    return unpatchify(torch.cat(frames, dim=2), vae.config.patch_size)


class Autoencoder(Stage):
    """Squared and absolute error of the reconstruction, and a little divergence."""

    def __init__(self, vae: Any, *, seed: int, steps: int, batch: int = BATCH) -> None:
        for weight in vae.parameters():
            if weight.dim() in _LAST:  # convolutions run a sixth faster with channels last
                weight.data = weight.data.contiguous(memory_format=_LAST[weight.dim()])
        super().__init__(vae, name="autoencoder", seed=seed, steps=steps, rate=RATE)
        self.count = batch

    def batch(self, step: int) -> Tensor:
        """Videos of the train split, drawn from (seed, stage, step)."""
        return any_videos(self.seed, self.name, step, self.count)

    def loss(
        self, batch: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted squared error of the video and divergence of the latents; what is logged."""
        with quick_arithmetic():
            posterior = self.network.encode(batch).latent_dist
            mean, deviation = posterior.mean.float(), posterior.std.float()
            noise = torch.randn(mean.shape, generator=draw)
            video = decode(self.network, mean + deviation * noise).float()
        weight = attention(batch)
        missed = video - batch
        squared, absolute = (weight * missed.square()).mean(), (weight * missed.abs()).mean()
        variance = deviation.pow(2)
        divergence = 0.5 * (mean.pow(2) + variance - 1 - variance.log()).mean()
        loss = squared + _ABSOLUTE * absolute + _KL * divergence
        facts = {"psnr": psnr(missed.detach().square().mean()), "divergence": divergence.detach()}
        return loss, facts


def attention(video: Tensor) -> Tensor:
    """What an error counts per pixel, [B, 1, T, H, W] with mean 1: 1 on the empty ground, 4 on what
    is painted, 12 where the picture is no longer the first frame. The rules look at small shapes
    that move; of all pixels these are a fiftieth."""
    ground = torch.from_numpy(GROUND).view(1, 3, 1, 1, 1) * 2 - 1
    painted = (video - ground).abs().amax(1, keepdim=True) > 0.1
    changed = (video - video[:, :, :1]).abs().amax(1, keepdim=True) > 0.1
    weight = 1.0 + 3 * painted + 8 * changed
    return weight / weight.mean()


def psnr(squared: Tensor) -> Tensor:
    """Mean squared error over the range [-1, 1] -> peak signal-to-noise ratio in dB."""
    return -10 * torch.log10(squared / 4)


@torch.no_grad()
def state_latents(vae: Any, *, seed: int, videos: int = 512) -> None:
    """Writes mean and deviation of the latents, per channel, into the VAE's config."""
    chunks = [
        vae.encode(any_videos(seed, "latents", step, 32)).latent_dist.mode()
        for step in range(videos // 32)
    ]
    std, mean = torch.std_mean(torch.cat(chunks), dim=(0, 2, 3, 4))
    vae.register_to_config(
        latents_mean=[round(value, 4) for value in mean.tolist()],
        latents_std=[round(value, 4) for value in std.tolist()],
    )


def normalised(vae: Any, z: Tensor) -> Tensor:
    """The VAE's latents [B, C, t, h, w] -> (z - mean) / std per channel."""
    mean, std = _statistics(vae)
    return (z - mean) / std


def denormalised(vae: Any, z: Tensor) -> Tensor:
    """Inverse of `normalised`."""
    mean, std = _statistics(vae)
    return z * std + mean


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    shape = (1, -1, 1, 1, 1)
    config = vae.config
    return torch.tensor(config.latents_mean).view(shape), torch.tensor(config.latents_std).view(
        shape
    )


def load(out: Path) -> Any:
    """The finished autoencoder of a recipe's folder, frozen, in float32.

    Raises:
        ValueError: the stage has not been run.
    """
    if not (out / "vae" / "config.json").is_file():
        raise ValueError(
            f"out: got {out} without vae/, expected a finished autoencoder; run "
            f"`python -m benchmarks.mini.train autoencoder --out {out}` first"
        )
    vae: Any = AutoencoderKLWan.from_pretrained(out / "vae", torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains, measures the latents, writes `vae/`."""
    torch.manual_seed(arguments.seed)
    stage = Autoencoder(build(), seed=arguments.seed, steps=arguments.steps or STEPS)
    if not train(stage, arguments.out, minutes=arguments.minutes):
        return
    vae: Any = stage.deliver()
    state_latents(vae, seed=arguments.seed)
    vae.to(torch.float16).save_pretrained(arguments.out / "vae", safe_serialization=True)
