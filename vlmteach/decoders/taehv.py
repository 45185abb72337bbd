"""TAEHV: the surrogate decoder of the reward path (D_lite of Algorithm 1).

A small convolutional decoder for the latents of Wan's VAEs, about 200 times cheaper than the VAE,
and for those of HunyuanVideo-1.5's. It loads the taehv project's `taew2_2`, `taew2_2_super`,
`taew2_1`, `taehv1_5` and `taehv1_5_super`, and LightX2V's `lighttaew2_2`, `lighttaew2_1` and
`lighttaehy1_5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmteach.clamp import straight_through_clamp
from vlmteach.decoders.base import DecoderFacts
from vlmteach.decoders.frames import wanted_frames
from vlmteach.decoders.taehv_file import Architecture, read_decoder
from vlmteach.decoders.taehv_latents import takes_vae_latents, to_vae_latents
from vlmteach.decoders.taehv_layers import run

_FRAMES_PER_LATENT = 4
_TRIM = _FRAMES_PER_LATENT - 1
"""Frames dropped from the start: the first latent frame stands for one clip frame, not four."""


class TaehvDecoder:
    """Differentiable latents to pixels. Frozen; only the decoder half of the file is built.

    Only what the wanted frames depend on is computed, exactly: each memory block reaches one frame
    back, so a late frame needs the nine latent frames up to it at most, whatever the clip's length.
    Frames spread evenly over the clip therefore still need all latents up to the last, and what is
    saved is the high-resolution end. Counted for `taew2_2` at 704 x 1280, in TFLOP of the forward
    pass and GiB kept in bfloat16 for the backward: all 121 frames 9.7 and 18.4, 24 evenly spread
    frames 6.8 and 10.5, 16 frames 6.0 and 8.6, the last frame alone 0.7 and 0.8; of 89 frames, all
    7.2 and 13.6, 24 frames 5.5 and 8.9.
    """

    facts: DecoderFacts
    architecture: Architecture
    network: nn.Sequential
    """The layers, at the indices of the file's `decoder.*` tensors."""
    vae_latents: bool
    """Whether the file takes the VAE's latents; `decode` takes normalised ones all the same."""

    def __init__(
        self, architecture: Architecture, network: nn.Sequential, *, vae_latents: bool
    ) -> None:
        self.architecture = architecture
        # The order in memory that convolutions compute in: no turning to and fro around each.
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.vae_latents = vae_latents
        self.facts = DecoderFacts(
            latent_channels=architecture.latent_channels,
            spatial_stride=8 * architecture.patch,
            temporal_stride=_FRAMES_PER_LATENT,
        )

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        vae_latents: bool | None = None,
    ) -> TaehvDecoder:
        """Reads a safetensors file; its architecture is found from the tensors' shapes.

        Args:
            checkpoint: the file, with the tensors of one of the published files and no others.
            dtype: what the weights are cast to and the decoder computes in.
            device: where it computes.
            vae_latents: whether the file was trained on the VAE's latents rather than normalised
                ones. None goes by the name, as LightX2V does: `lighttae*` files were.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not safetensors or not one of these decoders; says what was
                found, what was expected and where to get it. Or none is named.
        """
        if checkpoint is None:
            raise ValueError(
                "decoder.checkpoint: got nothing, expected a TAEHV safetensors file; name one, or "
                "set decoder.family to full"
            )
        architecture, network = read_decoder(checkpoint, dtype=dtype)
        if vae_latents is None:
            vae_latents = takes_vae_latents(checkpoint)
        return cls(architecture, network.to(device), vae_latents=vae_latents)

    def decode(self, z0: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Normalised latents [1, C, t, h, w] -> pixels [K, 3, H, W] in [0, 1], with gradient.

        The value is clamped, the gradient passes straight through the clamp. Pixels are float32
        (float64 where the decoder computes in float64).

        Args:
            z0: normalised clean latents, any float dtype, on the decoder's device.
            frames: the clip frames wanted, ascending indices in [0, T), T = 4 (t - 1) + 1; all T
                when None. The result equals `decode(z0)[frames]`, value and gradient; a convolution
                kernel that rounds differently for a single frame can show as one part in 10^6 in
                float32.

        Raises:
            ValueError: latents of another shape, or frames outside the clip or out of order.
        """
        wanted = wanted_frames(z0, frames, self.facts)
        distinct = sorted(set(wanted))
        z = to_vae_latents(z0) if self.vae_latents else z0
        dtype = next(self.network.parameters()).dtype
        x = z[0].transpose(0, 1).to(dtype, memory_format=torch.channels_last)  # [t, C, h, w]
        x = run(self.network, x, [frame + _TRIM for frame in distinct])
        x = F.pixel_shuffle(x, self.architecture.patch)  # [K, 3, H, W]
        if len(distinct) < len(wanted):
            x = x[[distinct.index(frame) for frame in wanted]]
        return straight_through_clamp(x.to(torch.promote_types(dtype, torch.float32)))
