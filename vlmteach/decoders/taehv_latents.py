"""Which latents a TAEHV file takes: the video model's normalised ones, or the VAE's own.

The taehv project's files take normalised latents. LightX2V's `lighttae*` files have exactly the
same tensors but were trained on the VAE's latents, z * deviation + mean; nothing in the file tells
the two apart, and LightX2V itself decides by "lighttae" in the file's name. The wrong choice gives
washed-out frames, not an error.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

LATENT_MEAN: dict[int, tuple[float, ...]] = {
    16: (
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    ),
    32: (0.0,) * 32,
    48: (
        *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
        *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
        *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
        *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
        *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
        *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
    ),
}
"""Per latent channel, by the number of channels: 16 is Wan 2.1's VAE, 48 Wan 2.2's and 32
HunyuanVideo-1.5's."""

LATENT_DEVIATION: dict[int, tuple[float, ...]] = {
    16: (
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
    ),
    32: (1 / 1.03682,) * 32,  # one scaling factor for all channels
    48: (
        *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
        *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
        *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
        *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
        *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
        *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
    ),
}
"""As `LATENT_MEAN`: the `latents_mean` and `latents_std` of the published VAE configs."""


def takes_vae_latents(path: str | Path) -> bool:
    """Whether a file of this name takes the VAE's latents: LightX2V's `lighttae*` do."""
    return "lighttae" in Path(path).name.lower()


def to_vae_latents(z: Tensor) -> Tensor:
    """Normalised latents [..., C, t, h, w] -> the VAE's own, z * deviation + mean per channel.

    Raises:
        ValueError: C is none of 16, 32 and 48.
    """
    channels = z.shape[-4]
    if channels not in LATENT_MEAN:
        raise ValueError(
            f"got latents of {channels} channels, expected {sorted(LATENT_MEAN)}: a lighttae file "
            "takes the latents of a known VAE; use a file of the taehv project instead"
        )
    deviation = torch.tensor(LATENT_DEVIATION[channels], dtype=z.dtype, device=z.device)
    mean = torch.tensor(LATENT_MEAN[channels], dtype=z.dtype, device=z.device)
    return z * deviation.view(-1, 1, 1, 1) + mean.view(-1, 1, 1, 1)
