"""Wan2.2-A14B as a reasoner: two experts of one architecture, one for each part of the ladder.

The high-noise expert evaluates the timesteps from the checkpoint's boundary up, the low-noise one
those below. The adapter sits on one of them, the one whose rungs carry gradient; the other samples
as it is. An image is told in channels of its own and redrawn. All follows `WanPipeline` and
`WanImageToVideoPipeline` with `boundary_ratio`, and equals them to float32's rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from torch import Tensor
from transformers import UMT5EncoderModel

from vlmteach.checkpoints.tokenizers import load_tokenizer
from vlmteach.reasoners.base import Condition
from vlmteach.reasoners.clips import check_first_frame
from vlmteach.reasoners.parts import load_part, read_configs
from vlmteach.reasoners.wan import WanReasoner, cleared
from vlmteach.reasoners.wan_checkpoint import (
    WanParts,
    fuse_lora,
    has_second,
    load_transformer,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.types import ClipSpec

Expert = Literal["high_noise", "low_noise"]
_PARTS: dict[Expert, str] = {"high_noise": "transformer", "low_noise": "transformer_2"}
_EXPECTED = "the layout of Wan-AI/Wan2.2-I2V-A14B-Diffusers or Wan-AI/Wan2.2-T2V-A14B-Diffusers"


@dataclass(frozen=True, slots=True)
class ChannelCondition(Condition):
    """`first_latent` is None: the image stands in channels of its own."""

    known: Tensor | None
    """[1, 4 + C, t, h, w] which of a latent frame's 4 clip frames are given, and the latents of the
    clip that is grey but for them; None for text-to-video."""


def expert_of(boundary: float, ladder: tuple[float, ...], rungs: range) -> Expert:
    """The expert that evaluates these rungs.

    Args:
        boundary: the first timestep that is the high-noise expert's.
        ladder: timesteps of 1000, descending.
        rungs: those that carry gradient.

    Raises:
        ValueError: they are not all of one expert.
    """
    found: set[Expert] = {
        "high_noise" if ladder[rung] >= boundary else "low_noise" for rung in rungs
    }
    if len(found) > 1:
        raise ValueError(
            f"fit.gradient: got the timesteps {[ladder[rung] for rung in rungs]}, which lie on "
            f"both sides of {boundary}, expected those of one expert, which alone carries the "
            "adapter; take first, last or one rung"
        )
    return found.pop()


def boundary_of(checkpoint: str | Path) -> float:
    """The first timestep that is the high-noise expert's; refuses what is no such checkpoint.

    Raises:
        ValueError: for a checkpoint of another kind.
    """
    (index,) = read_configs(checkpoint, _EXPECTED, {None: WanPipeline})
    ratio = index.get("boundary_ratio")
    if not has_second(index) or ratio is None or index.get("expand_timesteps"):
        raise ValueError(
            f"checkpoint: got {str(checkpoint)!r} with transformer_2 "
            f"{index.get('transformer_2')!r} and boundary_ratio {ratio!r}, expected {_EXPECTED}; "
            "take reasoner.family wan for Wan2.2-TI2V-5B"
        )
    return 1000 * ratio


def load_experts(
    checkpoint: str | Path, dtype: torch.dtype, vae_dtype: torch.dtype, carrier: Expert
) -> tuple[WanParts, Any]:
    """The parts with one expert as their transformer, and the other expert; safetensors only."""
    experts: dict[Expert, Any] = {
        expert: load_transformer(checkpoint, part, dtype) for expert, part in _PARTS.items()
    }
    parts = WanParts(
        transformer=experts.pop(carrier),
        vae=load_part(AutoencoderKLWan, checkpoint, "vae", torch_dtype=vae_dtype),
        text_encoder=load_part(UMT5EncoderModel, checkpoint, "text_encoder", dtype=dtype),
        tokenizer=load_tokenizer(checkpoint, "tokenizer"),
    )
    (other,) = experts.values()
    return parts, other


class WanA14BReasoner(WanReasoner):
    """A frozen Wan2.2-A14B; implements `vlmteach.reasoners.base.Reasoner`."""

    def __init__(
        self,
        parts: WanParts,
        other: Any,
        *,
        carrier: Expert,
        boundary: float,
        device: torch.device,
        accepts: Literal["image", "text", "both"],
    ) -> None:
        """Freezes the parts and places them, both experts on `device`.

        Args:
            parts: with the expert that carries the adapter as their transformer.
            other: the other expert.
            carrier: which of them that is.
            boundary: the first timestep that is the high-noise expert's.
            device: where experts and VAE live.
            accepts: what the checkpoint was distilled for.

        Raises:
            ValueError: for channels that are neither kind's, or the kind that is not accepted.
        """
        super().__init__(parts, device=device, accepts=accepts)
        other.requires_grad_(False).eval()
        self.carrier: Expert = carrier
        self._boundary = boundary
        other = other.to(device)
        self.networks = (self.network, other)
        self._experts: dict[Expert, Any] = {
            "high_noise": self.network if carrier == "high_noise" else other,
            "low_noise": self.network if carrier == "low_noise" else other,
        }
        # Latents alone, or with an image's: the two kinds are models of their own.
        latents, given = parts.vae.config.z_dim, parts.transformer.config.in_channels
        kinds = {latents: "text", 2 * latents + parts.vae.config.scale_factor_temporal: "image"}
        if given not in kinds:
            raise ValueError(
                f"checkpoint: got in_channels {given}, expected one of {sorted(kinds)}; take a "
                f"checkpoint in {_EXPECTED}"
            )
        if accepts not in (kinds[given], "both"):
            raise ValueError(
                f"reasoner.accepts: got {accepts!r} for a checkpoint that makes video from "
                f"{kinds[given]} only, expected {kinds[given]!r}; set it, or take the other kind"
            )
        self.facts = replace(
            self.facts,
            accepts_image=kinds[given] == "image",
            accepts_text_only=kinds[given] == "text",
            holds_first_frame=False,
        )

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        dtype: torch.dtype,
        vae_dtype: torch.dtype = torch.float32,
        device: torch.device,
        accepts: Literal["image", "text", "both"] = "both",
        distillation_lora: str | None = None,
        checkpointing: bool = False,
        ladder: tuple[float, ...] = (1000.0,),
        rungs: range = range(1),
    ) -> Self:
        """Loads a checkpoint from a local folder or the hub.

        Args:
            checkpoint: folder or hub id in the layout of `Wan-AI/Wan2.2-I2V-A14B-Diffusers`.
            dtype: of experts and text encoder.
            vae_dtype: of the VAE.
            device: where experts and VAE live.
            accepts: what the checkpoint was distilled for.
            distillation_lora: a folder with `high_noise_model.safetensors` and
                `low_noise_model.safetensors`, fused into the two, as Wan2.2-Lightning ships them.
            checkpointing: recompute each block in the backward pass instead of keeping its
                activations; same gradients, bit for bit.
            ladder: timesteps of 1000, descending.
            rungs: those that carry gradient; the expert that evaluates them will carry the adapter.

        Raises:
            ValueError: for a checkpoint of another kind, a LoRA that does not fit it, or rungs that
                are not all of one expert.
        """
        boundary = boundary_of(checkpoint)
        carrier = expert_of(boundary, ladder, rungs)
        parts, other = load_experts(checkpoint, dtype, vae_dtype, carrier)
        for expert in _PARTS:
            transformer = parts.transformer if expert == carrier else other
            if distillation_lora is not None:
                fuse_lora(transformer, Path(distillation_lora) / f"{expert}_model.safetensors")
        loaded = cls(
            parts, other, carrier=carrier, boundary=boundary, device=device, accepts=accepts
        )
        loaded.recompute("full" if checkpointing else "none")
        return loaded

    @staticmethod
    def variant(checkpoint: str | Path, ladder: tuple[float, ...], rungs: range) -> Expert:
        """The expert that carries the adapter.

        Raises:
            ValueError: for a checkpoint of another kind, or rungs that are not all of one expert.
        """
        return expert_of(boundary_of(checkpoint), ladder, rungs)

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        first_frame: Image | None,
        clip: ClipSpec,
        ahead: Sequence[str] = (),
    ) -> ChannelCondition:
        """The prompt's embedding and the first frame's channels; see `WanReasoner.encode`."""
        self.latent_shape(clip)
        check_first_frame(self.facts, first_frame, clip)
        known = None if first_frame is None else self._known(first_frame, clip)
        text = self._text(prompt, ahead)
        return ChannelCondition(text=text, first_latent=None, known=known)

    def _known(self, image: Image, clip: ClipSpec) -> Tensor:
        pixels = self._pixels.preprocess(image.convert("RGB")).to(self.device, self.vae.dtype)
        video = pixels.new_zeros(1, 3, clip.frames, clip.height, clip.width)
        video[:, :, 0] = pixels  # in [-1, 1]: the others are grey
        with cleared(self.vae):
            latents = self.vae.encode(video).latent_dist.mode()
        latents = (latents - self.latents_mean) * (1 / self.latents_std)
        _, _, *frames = latents.shape
        given = latents.new_zeros(1, self.facts.temporal_stride, *frames)
        given[:, :, 0] = 1
        return torch.cat([given, latents], dim=1).float()

    def velocity(self, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        """u(z_sigma, sigma, c): one pass of the expert for this noise level, in its own dtype.

        Args:
            z: noisy latents [1, C, t, h, w].
            sigma: noise level in [0, 1]; the timestep is 1000 sigma.
            condition: from `encode`, for the same size.
        """
        assert isinstance(condition, ChannelCondition)
        dtype = self._patch_embedding.weight.dtype
        timestep = 1000 * sigma
        expert = self._experts["high_noise" if timestep >= self._boundary else "low_noise"]
        known = [] if condition.known is None else [condition.known.to(z.dtype)]
        velocity = expert(
            hidden_states=torch.cat([z, *known], dim=1).to(dtype),
            timestep=torch.full((1,), timestep, device=z.device),
            encoder_hidden_states=condition.text.to(dtype),
            return_dict=False,
        )[0]
        return velocity.to(z.dtype)

    def impose(self, z0: Tensor, condition: Condition) -> Tensor:
        """The identity: the model redraws a given first frame."""
        return z0
