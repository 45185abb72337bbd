"""What the families share whose rungs are all evaluated by one network, and decoded by one VAE."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmteach.reasoners.clips import latent_shape
from vlmteach.recompute import Checkpointing, recompute_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmteach.reasoners.base import ReasonerFacts
    from vlmteach.types import ClipSpec

log = logging.getLogger(__name__)


class OneNetwork:
    """Part of a `vlmteach.reasoners.base.Reasoner`, on diffusers' own classes."""

    facts: ReasonerFacts
    network: nn.Module
    vae: Any
    checkpointing: Checkpointing = "none"

    def recompute(self, mode: Checkpointing) -> None:
        """See `vlmteach.recompute`."""
        self.checkpointing = mode
        recompute_blocks(self.network, mode)

    @staticmethod
    def variant(checkpoint: str | Path, ladder: tuple[float, ...], rungs: range) -> object:
        """None: one network evaluates all rungs."""
        return None

    def latent_shape(self, clip: ClipSpec) -> tuple[int, int, int, int, int]:
        """(1, C, t, h, w) with T = 4 (t - 1) + 1, H = 16 h, W = 16 w.

        Raises:
            ValueError: for a number of frames or a size that the model cannot make.
        """
        return latent_shape(self.facts, clip)

    def _through_vae(self, latent: Tensor) -> Tensor:
        """[1, C, t, h, w] as the VAE takes them -> [1, 3, T, H, W] in [-1, 1]."""
        return self.vae.decode(latent).sample

    def _pixels_of(self, latent: Tensor) -> Tensor:
        """[1, C, t, h, w] as the VAE takes them -> [T, 3, H, W], float32 in [0, 1], or NaN.

        If the whole clip does not fit in memory, the picture is decoded in overlapping tiles, as
        diffusers recommends, which is nearly the same picture, and a warning says so.
        """
        try:
            video = self._through_vae(latent)
        except torch.OutOfMemoryError:
            video = None  # here the error is gone, and with it what its frames held
        if video is None:
            log.warning("the VAE ran out of memory on latents %s: decoding tiles", [*latent.shape])
            torch.cuda.empty_cache()
            self.vae.enable_tiling()
            try:
                video = self._through_vae(latent)
            finally:
                # A tiled encoding of the next first frame would depend on this clip's size.
                self.vae.use_tiling = False
        video = video[0].float() * 0.5 + 0.5
        # A clamp alone would make white of infinite pixels; 0 times them is no number, and no wait.
        video = video.clamp(0, 1).add_(video, alpha=0)
        return video.transpose(0, 1)  # C T H W -> T C H W
