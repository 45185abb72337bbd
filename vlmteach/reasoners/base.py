"""What a reasoner is to the rest of the house: a velocity field, a condition, a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from vlmteach.decoders.base import Decoder
    from vlmteach.types import ClipSpec


@dataclass(frozen=True, slots=True)
class ReasonerFacts:
    """Declared facts of a video model; the contract tests check that they are true."""

    latent_channels: int
    spatial_stride: int
    """Pixels per latent cell along H and along W."""
    temporal_stride: int
    """Clip frames per latent frame after the first: T = stride (t - 1) + 1."""
    size_multiple: int
    """H and W must be multiples of this (patch size x spatial stride)."""
    accepts_image: bool
    accepts_text_only: bool
    holds_first_frame: bool
    """Whether a given first frame is put back into every clean prediction (`impose`); else it is
    only a condition, and the model redraws it."""


class Place(NamedTuple):
    """Where a linear layer lies in the model that ComfyUI builds."""

    layer: str
    """Its name there, or that of the layer which holds several of ours, one under another."""
    part: int = 0
    """Which of them it is, from the top."""
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything the velocity field is told about one instance; computed once, without gradient.

    A family that tells its network more has a subclass, which only it reads.
    """

    text: Tensor
    """[1, S, D] text embedding."""
    first_latent: Tensor | None
    """[1, C, 1, h, w] normalised latent of the first frame; None for text-to-video."""


class Reasoner(Protocol):
    """A frozen, step-distilled flow-matching video model.

    Conventions: latents are normalised, [1, C, t, h, w], float32 (float64 in tests) whatever the
    network's dtype; sigma in [0, 1], z_sigma = (1 - sigma) z0 + sigma eps, u = eps - z0.
    """

    facts: ReasonerFacts
    network: torch.nn.Module
    """The module that carries the LoRA, a `PeftAdapterMixin` of diffusers; frozen, in eval mode."""
    lora_targets: Mapping[str, str | list[str]]
    """Name of a set of linear layers (`attention`, `cross_attention`, `self_attention`,
    `all_linear`) -> what peft takes as `target_modules`."""

    blocks: str | None
    """Name of the network's list of blocks, which run one after another, each first on what the one
    before gave out (`lora.blocks`); None where it has no such list."""

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        dtype: torch.dtype,
        vae_dtype: torch.dtype,
        device: torch.device,
        accepts: Literal["image", "text", "both"],
        distillation_lora: str | None,
        checkpointing: bool,
        ladder: tuple[float, ...],
        rungs: range,
    ) -> Self:
        """A frozen reasoner from a local folder or file, or a hub id; weights are never unpickled.

        Args:
            checkpoint: of this family.
            dtype: of the network.
            vae_dtype: of the VAE.
            device: where network and VAE live.
            accepts: what the checkpoint was distilled for.
            distillation_lora: a LoRA to fuse under the instance's, where the family takes one.
            checkpointing: recompute activations in the backward pass; the same gradients.
            ladder: timesteps in (0, 1000], descending, that the model will be sampled at.
            rungs: those of the ladder, from 0, that will carry gradient.

        Raises:
            ValueError: for a checkpoint of another kind, or a setting that does not fit it.
        """
        ...

    @staticmethod
    def variant(checkpoint: str, ladder: tuple[float, ...], rungs: range) -> object:
        """What of the rungs a loaded model depends on, to be compared: None where nothing does.

        Two loads of one checkpoint with equal variants give the same model.
        """
        ...

    def full_decoder(self, *, checkpointing: bool) -> Decoder:
        """The standard VAE as a differentiable decoder, sharing its weights: exact, and heavy."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        ...

    def latent_shape(self, clip: ClipSpec) -> tuple[int, int, int, int, int]:
        """(1, C, t, h, w) for a clip. Raises ValueError for sizes the model cannot make."""
        ...

    def encode(
        self,
        prompt: str,
        first_frame: Image | None,
        clip: ClipSpec,
        ahead: Sequence[str] = (),
    ) -> Condition:
        """Text embedding and first-frame latent.

        Args:
            prompt: told to the model.
            first_frame: of the clip's size; None for text-to-video.
            clip: to be made.
            ahead: prompts that will be encoded soon, which a family may prepare now, where that
                is cheaper together. They change nothing that is returned, and cannot fail here.

        Raises:
            ValueError: for a refused modality.
        """
        ...

    def velocity(self, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        """u(z_sigma, sigma, c), same shape and dtype as `z`; differentiable."""
        ...

    def impose(self, z0: Tensor, condition: Condition) -> Tensor:
        """Puts the known first frame back into a clean-latent prediction.

        The identity for text-to-video, and where facts say that the frame is not held.
        """
        ...

    def decode(self, z0: Tensor) -> Tensor:
        """The standard VAE: latents -> pixels [T, 3, H, W] in [0, 1]; no gradient."""
        ...

    def comfyui_key(self, module: str) -> Place:
        """A network module's name in diffusers -> its place in the model that ComfyUI builds.

        Raises ValueError for a module that no set of `lora_targets` names.
        """
        ...
