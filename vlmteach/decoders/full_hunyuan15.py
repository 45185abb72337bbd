"""HunyuanVideo-1.5's own VAE as a differentiable decoder: exact, and heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmteach.clamp import straight_through_clamp
from vlmteach.decoders.base import DecoderFacts
from vlmteach.decoders.frames import wanted_frames
from vlmteach.recompute import Checkpointing, recompute_blocks

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
        AutoencoderKLHunyuanVideo15,
    )


class HunyuanFullDecoder:
    """`AutoencoderKLHunyuanVideo15.decode` without the clamp that stops the gradient.

    The VAE is causal in time, its attention too: frame f needs the latent frames up to ceil(f / 4)
    and no later one is decoded. Unlike Wan's it decodes all of them at once, and its attention
    holds a mask of (t h w)^2 numbers: for short or small clips only, else take a surrogate. Tiling
    set on the VAE is not used here.

    Args:
        vae: the reasoner's VAE; shared, frozen here if it is not yet.
        checkpointing: recompute each block's activations in the backward pass.
    """

    facts: DecoderFacts

    def __init__(self, vae: AutoencoderKLHunyuanVideo15, *, checkpointing: bool = False) -> None:
        self.vae: Any = vae.eval().requires_grad_(False)
        self.recompute("full" if checkpointing else "none")
        config: Any = vae.config
        self.facts = DecoderFacts(
            latent_channels=config.latent_channels,
            spatial_stride=config.spatial_compression_ratio,
            temporal_stride=config.temporal_compression_ratio,
        )

    def recompute(self, mode: Checkpointing) -> None:
        """See `vlmteach.recompute`."""
        self.checkpointing: Checkpointing = mode
        recompute_blocks(self.vae, mode)

    def decode(self, z0: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Normalised latents [1, C, t, h, w] -> pixels [K, 3, H, W] in [0, 1], with gradient.

        The value is `(vae.decode(z0 / scaling_factor) + 1) / 2`; the gradient passes straight
        through the clamp. Pixels are float32 (float64 where the VAE computes in float64).

        Args:
            z0: normalised clean latents, any float dtype, on the VAE's device.
            frames: the clip frames wanted, ascending indices in [0, T), T = 4 (t - 1) + 1; all T
                when None. The result equals `decode(z0)[frames]`.

        Raises:
            ValueError: latents of another shape, or frames outside the clip or out of order.
        """
        wanted = wanted_frames(z0, frames, self.facts)
        last = -(-wanted[-1] // self.facts.temporal_stride)  # the latent frame it ends with
        z = z0[:, :, : last + 1] / self.vae.config.scaling_factor
        pixels = self.vae.decoder(z.to(self.vae.dtype))  # [1, 3, T, H, W]
        pixels = pixels[0].transpose(0, 1)[wanted]
        pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
        return straight_through_clamp(pixels, -1.0, 1.0) * 0.5 + 0.5
