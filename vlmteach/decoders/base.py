"""What a decoder is on the reward path: latents in, differentiable pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DecoderFacts:
    """Declared facts of a decoder; the contract tests check that they are true."""

    latent_channels: int
    spatial_stride: int
    temporal_stride: int


class Decoder(Protocol):
    """A frozen decoder of one latent space."""

    facts: DecoderFacts

    def decode(self, z0: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        """Normalised latents [1, C, t, h, w] -> pixels [K, 3, H, W] in [0, 1], with gradient.

        Args:
            z0: normalised clean latents.
            frames: the clip frames wanted, ascending indices in [0, T); all T when None. The
                result equals `decode(z0)[frames]` exactly.

        The value is clamped to [0, 1], the gradient passes straight through (a clamp would kill
        the gradient of saturated pixels, and symbolic frames are mostly pure white or black).
        """
        ...


class LoadedDecoder(Decoder, Protocol):
    """A decoder with a checkpoint of its own: what the table of decoders names."""

    @classmethod
    def load(cls, checkpoint: str | None, *, dtype: torch.dtype, device: torch.device) -> Self:
        """A frozen decoder from a local file or folder, or a hub id; weights are never unpickled.

        Args:
            checkpoint: None where the config names none.
            dtype: what it computes in.
            device: where it computes.

        Raises:
            ValueError: for a checkpoint of another kind, or none where one is needed.
        """
        ...
