"""Wan2.2-TI2V-5B and its step-distilled kin as a reasoner, on diffusers' own classes.

Image-to-video holds the first latent frame fixed: its tokens are given the encoded image and
timestep 0, all others the noisy latents and the rung's timestep, and every clean prediction has
the image put back. Text-to-video has no such frame. Both follow `WanImageToVideoPipeline` and
`WanPipeline` with `expand_timesteps`, and equal them to float32's rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.nn.functional as F
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn

from vlmteach.decoders.full import FullDecoder
from vlmteach.reasoners.base import Condition, Place, ReasonerFacts
from vlmteach.reasoners.clips import check_first_frame
from vlmteach.reasoners.one_network import OneNetwork
from vlmteach.reasoners.parts import Lent, original_name
from vlmteach.reasoners.texts import Texts
from vlmteach.reasoners.wan_checkpoint import WanParts, fuse_lora, load_parts
from vlmteach.reasoners.wan_names import LINEAR

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.types import ClipSpec

TEXT_TOKENS = 512
"""Length every prompt is cut or padded to; Wan was trained with it."""

_ATTENTION = r"(to_q|to_k|to_v|to_out\.0)"
LORA_TARGETS: Mapping[str, str | list[str]] = {
    "attention": rf"blocks\.\d+\.attn[12]\.{_ATTENTION}",
    "self_attention": rf"blocks\.\d+\.attn1\.{_ATTENTION}",
    "cross_attention": rf"blocks\.\d+\.attn2\.{_ATTENTION}",
    "all_linear": rf"blocks\.\d+\.(attn[12]\.{_ATTENTION}|ffn\.net\.(0\.proj|2))",
}
"""Names of `LoraConfig.targets` -> the modules they mean, as a regular expression for peft."""


class WanReasoner(OneNetwork):
    """A frozen Wan2.2-TI2V-5B; implements `vlmteach.reasoners.base.Reasoner`."""

    lora_targets: Mapping[str, str | list[str]] = LORA_TARGETS
    blocks: str | None = "blocks"

    def __init__(
        self,
        parts: WanParts,
        *,
        device: torch.device,
        accepts: Literal["image", "text", "both"],
    ) -> None:
        """Freezes the parts and places them: transformer and VAE on `device`.

        The text encoder stays on the CPU whatever the device: it is 11 GB at full size and
        seldom needed; its weights are copied to the device and dropped again, see `Texts`.
        """
        for part in (parts.transformer, parts.vae, parts.text_encoder):
            part.requires_grad_(False).eval()
        self.network: nn.Module = parts.transformer.to(device)
        self.networks: tuple[nn.Module, ...] = (self.network,)
        """All that are sampled with, the one that carries the adapter first."""
        self.encoders: tuple[nn.Module, ...] = (parts.text_encoder,)
        """On the CPU, and lent to the device for a pass."""
        self.vae: Any = parts.vae.to(device)
        self.text_encoder = parts.text_encoder
        self.tokenizer = parts.tokenizer
        self._lent = Lent(parts.text_encoder, device)
        self._texts = Texts(self._encode_text, [self._lent])
        self._patch_embedding: nn.Conv3d = parts.transformer.patch_embedding
        self._patch: tuple[int, int, int] = tuple(parts.transformer.config.patch_size)
        vae = parts.vae.config
        self.facts = ReasonerFacts(
            latent_channels=vae.z_dim,
            spatial_stride=vae.scale_factor_spatial,
            temporal_stride=vae.scale_factor_temporal,
            size_multiple=vae.scale_factor_spatial * self._patch[1],
            accepts_image=accepts in ("image", "both"),
            accepts_text_only=accepts in ("text", "both"),
            holds_first_frame=True,
        )
        shape = (1, vae.z_dim, 1, 1, 1)
        self.latents_mean = torch.tensor(vae.latents_mean, device=device).view(shape)
        self.latents_std = torch.tensor(vae.latents_std, device=device).view(shape)
        self._pixels = VideoProcessor(vae_scale_factor=vae.scale_factor_spatial)

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
            checkpoint: folder or hub id in the layout of `Wan-AI/Wan2.2-TI2V-5B-Diffusers`.
            dtype: of transformer and text encoder.
            vae_dtype: of the VAE.
            device: where transformer and VAE live.
            accepts: what the checkpoint was distilled for.
            distillation_lora: a safetensors LoRA fused into the weights, beneath any other.
            checkpointing: recompute each block in the backward pass instead of keeping its
                activations; same gradients, bit for bit.
            ladder, rungs: of no consequence, as one network evaluates all rungs.

        Raises:
            ValueError: for a checkpoint of another kind, or a LoRA that does not fit it.
        """
        parts = load_parts(checkpoint, dtype, vae_dtype)
        if distillation_lora is not None:
            fuse_lora(parts.transformer, distillation_lora)
        loaded = cls(parts, device=device, accepts=accepts)
        loaded.recompute("full" if checkpointing else "none")
        return loaded

    def full_decoder(self, *, checkpointing: bool) -> FullDecoder:
        """The standard VAE as a differentiable decoder, sharing its weights."""
        return FullDecoder(self.vae, checkpointing=checkpointing)

    @staticmethod
    def comfyui_key(module: str) -> Place:
        """diffusers' name of a linear layer -> its place in ComfyUI's model, which is the original.

        >>> WanReasoner.comfyui_key("blocks.7.attn2.to_out.0").layer
        'blocks.7.cross_attn.o'

        Raises:
            ValueError: for a module outside `LORA_TARGETS`.
        """
        return Place(original_name(module, "blocks", "blocks", LINEAR))

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        return self._patch_embedding.weight.device

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        first_frame: Image | None,
        clip: ClipSpec,
        ahead: Sequence[str] = (),
    ) -> Condition:
        """The prompt's embedding and the first frame's latent.

        Args:
            prompt: cleaned as Wan's training data was, cut to 512 tokens.
            first_frame: exactly `clip.height` x `clip.width` pixels; None for text-to-video.
            clip: the clip to be made.
            ahead: prompts that will be encoded soon, see `Texts`.

        Raises:
            ValueError: for a size the model cannot make, a first frame of another size than the
                clip's, or a kind of instance that the checkpoint does not accept.
        """
        self.latent_shape(clip)
        check_first_frame(self.facts, first_frame, clip)
        latent = None if first_frame is None else self._encode_image(first_frame)
        return Condition(text=self._text(prompt, ahead), first_latent=latent)

    def _text(self, prompt: str, ahead: Sequence[str]) -> Tensor:
        """[1, 512, D], zero behind the last token, as `WanPipeline.encode_prompt` makes it."""
        (text,) = self._texts.of(prompt, ahead)
        return F.pad(text, (0, 0, 0, TEXT_TOKENS - text.shape[1]))

    def _encode_text(self, prompt: str) -> tuple[Tensor]:
        """[1, S, D] of the prompt's S tokens."""
        tokens = self.tokenizer(
            [prompt_clean(prompt)],
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        inputs = (tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device))
        text = self._lent(*inputs).last_hidden_state  # [1, 512, D]
        return (text[:, : int(tokens.attention_mask.sum())],)

    def _encode_image(self, image: Image) -> Tensor:
        """[1, C, 1, h, w]: the mode of the VAE's posterior, normalised per channel."""
        pixels = self._pixels.preprocess(image.convert("RGB")).to(self.device, self.vae.dtype)
        with cleared(self.vae):
            latent = self.vae.encode(pixels[:, :, None]).latent_dist.mode()  # pixels in [-1, 1]
        return ((latent - self.latents_mean) * (1 / self.latents_std)).float()

    def velocity(self, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        """u(z_sigma, sigma, c): one pass of the transformer, in its own dtype.

        Args:
            z: noisy latents [1, C, t, h, w].
            sigma: noise level in [0, 1]; the timestep is 1000 sigma.
            condition: from `encode`, for the same size.

        Returns:
            The velocity, shape and dtype of `z`. On a given first frame it means nothing: `impose`
            overwrites what is predicted there.
        """
        dtype = self._patch_embedding.weight.dtype
        _, _, t, h, w = z.shape
        tokens = (h // self._patch[1]) * (w // self._patch[2])  # per latent frame
        timestep = torch.full((1, t * tokens), 1000 * sigma, device=z.device)
        if condition.first_latent is not None:
            timestep[:, :tokens] = 0
        velocity = self.network(
            hidden_states=self.impose(z, condition).to(dtype),
            timestep=timestep,
            encoder_hidden_states=condition.text.to(dtype),
            return_dict=False,
        )[0]
        return velocity.to(z.dtype)

    def impose(self, z0: Tensor, condition: Condition) -> Tensor:
        """The known first latent frame in place of the predicted one (identity for text)."""
        if condition.first_latent is None:
            return z0
        return torch.cat([condition.first_latent.to(z0.dtype), z0[:, :, 1:]], dim=2)

    @torch.no_grad()
    def decode(self, z0: Tensor) -> Tensor:
        """The standard VAE: clean latents -> pixels [T, 3, H, W], float32 in [0, 1]; no gradient.

        Frames pass through the VAE one latent at a time; see `OneNetwork` for too little memory.
        """
        # Divided by 1 / std, as the pipelines do it, so that the rounding is theirs.
        latent = z0 / (1 / self.latents_std) + self.latents_mean
        return self._pixels_of(latent.to(self.vae.dtype))

    def _through_vae(self, latent: Tensor) -> Tensor:
        with cleared(self.vae):
            return super()._through_vae(latent)


@contextmanager
def cleared(vae: Any) -> Iterator[None]:
    """Drops the feature cache of a pass through Wan's VAE, gigabytes, also where the pass fails."""
    try:
        yield
    finally:
        vae.clear_cache()
