"""The reasoner's own VAE as a differentiable decoder: exact, and heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlmteach.clamp import straight_through_clamp
from vlmteach.decoders.base import DecoderFacts
from vlmteach.decoders.frames import wanted_frames
from vlmteach.recompute import Checkpointing

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan


class FullDecoder:
    """`AutoencoderKLWan.decode` without the clamp that stops the gradient of saturated pixels.

    The VAE decodes one latent frame at a time and hands what later frames need of earlier ones
    through a feature cache, so it is causal: frame f needs the latent frames up to ceil(f / 4) and
    no later one is decoded. Everything up to the last wanted frame is.

    Without checkpointing the activations of every latent frame are kept for the backward pass
    (counted at 704 x 1280 x 121 in bfloat16: 829 GiB); with it, those of one and the caches of all.
    Tiling and slicing set on the VAE are not used here.

    Args:
        vae: the reasoner's VAE; shared, frozen here if it is not yet.
        checkpointing: recompute each latent frame's activations in the backward pass.
    """

    facts: DecoderFacts

    def __init__(self, vae: AutoencoderKLWan, *, checkpointing: bool = False) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.recompute("full" if checkpointing else "none")
        config: Any = vae.config
        self._patch: int = config.patch_size or 1
        self.facts = DecoderFacts(
            latent_channels=config.z_dim,
            spatial_stride=self._patch * 2 ** (len(config.dim_mult) - 1),
            temporal_stride=2 ** sum(config.temperal_downsample),
        )

    def recompute(self, mode: Checkpointing) -> None:
        """See `vlmteach.recompute`; its little attention is recomputed with the rest."""
        self.checkpointing: Checkpointing = mode

    def decode(self, z0: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Normalised latents [1, C, t, h, w] -> pixels [K, 3, H, W] in [0, 1], with gradient.

        The value is `(vae.decode(z0 * std + mean) + 1) / 2` with the config's `latents_mean` and
        `latents_std`; the gradient passes straight through the clamp. Pixels are float32 (float64
        where the VAE computes in float64).

        Args:
            z0: normalised clean latents, any float dtype, on the VAE's device.
            frames: the clip frames wanted, ascending indices in [0, T), T = 4 (t - 1) + 1; all T
                when None. The result equals `decode(z0)[frames]`.

        Raises:
            ValueError: latents of another shape, or frames outside the clip or out of order.
        """
        wanted = wanted_frames(z0, frames, self.facts)
        last = -(-wanted[-1] // self.facts.temporal_stride)  # the latent frame it ends with
        pixels = self._decode(self._vae_latents(z0[:, :, : last + 1]))  # [1, 3, T, H, W]
        pixels = pixels[0].transpose(0, 1)[wanted]
        pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
        return straight_through_clamp(pixels, -1.0, 1.0) * 0.5 + 0.5

    def _vae_latents(self, z0: Tensor) -> Tensor:
        config: Any = self.vae.config
        mean = torch.tensor(config.latents_mean, dtype=z0.dtype, device=z0.device)
        deviation = torch.tensor(config.latents_std, dtype=z0.dtype, device=z0.device)
        z = z0 * deviation.view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
        return z.to(next(self.vae.decoder.parameters()).dtype)

    def _decode(self, z: Tensor) -> Tensor:
        x = self.vae.post_quant_conv(z)
        # One slot per causal convolution, as many as the VAE itself keeps; more do no harm.
        cache: tuple[Any, ...] = (None,) * sum(1 for _ in self.vae.decoder.modules())
        decoded: list[Tensor] = []
        for index in range(x.shape[2]):
            arguments = (x[:, :, index : index + 1], index == 0, *cache)
            if self.checkpointing != "none":
                result: Any = checkpoint(self._latent_frame, *arguments, use_reentrant=False)
            else:
                result = self._latent_frame(*arguments)
            pixels, *cache_list = result
            cache = tuple(cache_list)
            decoded.append(pixels)
        return self._unpatchify(torch.cat(decoded, dim=2))

    def _latent_frame(self, x: Tensor, first: bool, *cache: Any) -> tuple[Any, ...]:
        """One latent frame -> its pixels (one clip frame if first, else four) and the new cache.

        The cache comes in and goes out as values, so that a recomputation starts from the same one.
        """
        updated = list(cache)
        pixels = self.vae.decoder(x, feat_cache=updated, feat_idx=[0], first_chunk=first)
        return pixels, *updated

    def _unpatchify(self, x: Tensor) -> Tensor:
        """[1, 3 p p, T, H / p, W / p] -> [1, 3, T, H, W]; the column varies slower than the row."""
        p = self._patch
        x = x.unflatten(1, (3, p, p))  # [1, 3, column, row, T, H / p, W / p]
        x = x.permute(0, 1, 4, 5, 3, 6, 2)  # [1, 3, T, H / p, row, W / p, column]
        return x.flatten(5, 6).flatten(3, 4)
