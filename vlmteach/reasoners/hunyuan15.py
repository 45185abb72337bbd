"""HunyuanVideo-1.5 as a reasoner, on diffusers' own classes.

Two text encoders tell it the prompt and the words in quotation marks; for image-to-video a SigLIP
embedding and the first frame's latents, in channels of their own, tell it the image. It redraws
that frame: nothing is put back into a prediction. All follows `HunyuanVideo15Pipeline` and
`HunyuanVideo15ImageToVideoPipeline`, and equals them to float32's rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5_image2video import (
    HunyuanVideo15ImageToVideoPipeline,
)
from torch import Tensor, nn

from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder
from vlmteach.reasoners.base import Condition, Place, ReasonerFacts
from vlmteach.reasoners.clips import check_first_frame
from vlmteach.reasoners.hunyuan15_checkpoint import HunyuanParts, load_parts
from vlmteach.reasoners.hunyuan15_names import originals, place
from vlmteach.reasoners.lora_file import fuse_lora
from vlmteach.reasoners.one_network import OneNetwork
from vlmteach.reasoners.parts import Lent, layers_of
from vlmteach.reasoners.texts import Texts

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmteach.types import ClipSpec

_PIPELINE: Any = HunyuanVideo15ImageToVideoPipeline
"""For its encoding steps, which are static methods; typed loosely, as it is given `Lent`."""


def lora_targets(blocks: int) -> dict[str, str | list[str]]:
    """Names of `LoraConfig.targets` -> the modules they mean, as a regular expression for peft.

    Text and video attend jointly: `self_attention` is what the video's tokens pass through,
    `cross_attention` what the text's do, `attention` both. The last block's text output is thrown
    away by the model; the layers that only feed it carry nothing.

    Args:
        blocks: of the transformer.
    """
    video = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"
    before_last = rf"transformer_blocks\.(?!{blocks - 1}\.)\d+"
    text = (
        r"transformer_blocks\.\d+\.attn\.add_(k|v)_proj"
        rf"|{before_last}\.attn\.(add_q_proj|to_add_out)"
    )
    feed = (
        r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
        rf"|{before_last}\.ff_context\.net\.(0\.proj|2)"
    )
    return {
        "attention": f"{video}|{text}",
        "self_attention": video,
        "cross_attention": text,
        "all_linear": f"{video}|{text}|{feed}",
    }


@dataclass(frozen=True, slots=True)
class HunyuanCondition(Condition):
    """`text` holds the prompt's S tokens and no padding; `first_latent` is None."""

    glyphs: Tensor
    """[1, S', D'] embedding of the words in quotation marks; S' is 0 where there are none."""
    image: Tensor
    """[1, S'', D''] embedding of the first frame; S'' is 0 for text-to-video."""
    known: Tensor
    """[1, C + 1, t, h, w] the first frame's latents and their mask, zero elsewhere."""


class HunyuanReasoner(OneNetwork):
    """A frozen HunyuanVideo-1.5; implements `vlmteach.reasoners.base.Reasoner`."""

    blocks: str | None = "transformer_blocks"

    def __init__(
        self,
        parts: HunyuanParts,
        *,
        device: torch.device,
        accepts: Literal["image", "text", "both"],
    ) -> None:
        """Freezes the parts and places them: transformer and VAE on `device`.

        The three encoders stay on the CPU whatever the device: they are 17 GB at full size and
        seldom needed; their weights are copied to the device and dropped again, see `Texts`.
        """
        encoders = (parts.text_encoder, parts.glyph_encoder, parts.image_encoder)
        for part in (parts.transformer, parts.vae, *encoders):
            if part is not None:
                part.requires_grad_(False).eval()
        self.parts = parts
        self.network: nn.Module = parts.transformer.to(device)
        self.networks: tuple[nn.Module, ...] = (self.network,)
        """All that are sampled with, the one that carries the adapter first."""
        self.encoders: tuple[nn.Module, ...] = tuple(filter(None, encoders))
        """On the CPU, and lent to the device for a pass."""
        self.vae: Any = parts.vae.to(device)
        config, vae = parts.transformer.config, parts.vae.config
        self._first_layer: nn.Conv3d = parts.transformer.x_embedder.proj
        self._mean_flow: bool = config.use_meanflow
        self._image_width: int = config.image_embed_dim
        self._text_encoder, self._glyph_encoder, self._image_encoder = (
            Lent(encoder, device) for encoder in encoders
        )
        self._texts = Texts(self._encode_text, [self._text_encoder, self._glyph_encoder])
        self.facts = ReasonerFacts(
            latent_channels=vae.latent_channels,
            spatial_stride=vae.spatial_compression_ratio,
            temporal_stride=vae.temporal_compression_ratio,
            size_multiple=vae.spatial_compression_ratio * config.patch_size,
            accepts_image=accepts in ("image", "both"),
            accepts_text_only=accepts in ("text", "both"),
            holds_first_frame=False,
        )
        self.lora_targets: Mapping[str, str | list[str]] = lora_targets(config.num_layers)
        self._pixels = HunyuanVideo15ImageProcessor(
            vae_scale_factor=vae.spatial_compression_ratio, do_resize=False, do_convert_rgb=True
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
            checkpoint: folder or hub id in the layout of
                `hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v`.
            dtype: of transformer and encoders.
            vae_dtype: of the VAE.
            device: where transformer and VAE live.
            accepts: what the checkpoint was distilled for.
            distillation_lora: a safetensors LoRA fused into the weights, beneath any other.
            checkpointing: recompute each block in the backward pass instead of keeping its
                activations; same gradients, bit for bit.
            ladder, rungs: of no consequence, as one network evaluates all rungs.

        Raises:
            ValueError: for a checkpoint of another kind, one without an image encoder of which
                images are expected, or a LoRA that does not fit it.
        """
        parts = load_parts(checkpoint, dtype, vae_dtype)
        if parts.image_encoder is None and accepts != "text":
            raise ValueError(
                f"reasoner.accepts: got {accepts!r} for {str(checkpoint)!r}, which has no image "
                "encoder, expected 'text'; set it, or take an image-to-video checkpoint (_i2v)"
            )
        if distillation_lora is not None:
            layers = layers_of(name for name, _ in parts.transformer.named_parameters())
            fuse_lora(parts.transformer, distillation_lora, originals(layers))
        loaded = cls(parts, device=device, accepts=accepts)
        loaded.recompute("full" if checkpointing else "none")
        return loaded

    def full_decoder(self, *, checkpointing: bool) -> HunyuanFullDecoder:
        """The standard VAE as a differentiable decoder, sharing its weights."""
        return HunyuanFullDecoder(self.vae, checkpointing=checkpointing)

    @staticmethod
    def comfyui_key(module: str) -> Place:
        """diffusers' name of a linear layer -> its place in ComfyUI's model.

        >>> HunyuanReasoner.comfyui_key("transformer_blocks.7.attn.add_k_proj")
        Place(layer='double_blocks.7.txt_attn.qkv', part=1, parts=3)

        Raises:
            ValueError: for a module outside `lora_targets`.
        """
        return place(module)

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        return self._first_layer.weight.device

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        first_frame: Image | None,
        clip: ClipSpec,
        ahead: Sequence[str] = (),
    ) -> HunyuanCondition:
        """All that the network is told of an instance.

        The padding of the pipelines' fixed lengths is left out: it is masked from every token that
        is not padding, and the attention over it is paid for all the same.

        Args:
            prompt: cut to 1000 tokens, its words in quotation marks to 256 letters.
            first_frame: exactly `clip.height` x `clip.width` pixels; None for text-to-video.
            clip: the clip to be made.
            ahead: prompts that will be encoded soon, see `Texts`.

        Raises:
            ValueError: for a size the model cannot make, a first frame of another size than the
                clip's, or a kind of instance that the checkpoint does not accept.
        """
        shape = self.latent_shape(clip)
        check_first_frame(self.facts, first_frame, clip)
        device = self.device
        text, glyphs = self._texts.of(prompt, ahead)
        _, channels, *frames = shape
        known = torch.zeros(1, channels + 1, *frames, device=device)
        image = torch.zeros(1, 0, self._image_width, device=device)
        if first_frame is not None:
            image = _PIPELINE._get_image_embeds(
                self._image_encoder, self.parts.image_processor, first_frame, device
            )
            known[:, :channels, :1] = _PIPELINE._get_image_latents(
                self.vae, self._pixels, first_frame, clip.height, clip.width, device
            )
            known[:, channels, 0] = 1
        return HunyuanCondition(
            text=text,
            first_latent=None,
            glyphs=glyphs,
            image=image,
            known=known,
        )

    def _encode_text(self, prompt: str) -> tuple[Tensor, Tensor]:
        """[1, S, D] and [1, S', D'] of the prompt's and the quoted words' tokens."""
        parts, device = self.parts, self.device
        text, mask = _PIPELINE._get_mllm_prompt_embeds(
            self._text_encoder, parts.tokenizer, prompt, device
        )
        glyphs, glyph_mask = _PIPELINE._get_byt5_prompt_embeds(
            parts.glyph_tokenizer, self._glyph_encoder, prompt, device
        )
        return text[:, mask[0].bool()], glyphs[:, glyph_mask[0].bool()]

    def velocity(self, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        """u(z_sigma, sigma, c): one pass of the transformer, in its own dtype.

        A mean-flow checkpoint (the official step distillation) predicts the mean velocity down to a
        second noise level. It is asked for level 0, so that z - sigma u is its prediction of the
        clean latents, as everywhere here.

        Args:
            z: noisy latents [1, C, t, h, w].
            sigma: noise level in [0, 1]; the timestep is 1000 sigma.
            condition: from `encode`, for the same size.

        Returns:
            The velocity, shape and dtype of `z`.
        """
        assert isinstance(condition, HunyuanCondition)
        dtype = self._first_layer.weight.dtype
        # In the network's dtype, which in bfloat16 rounds most timesteps, as the pipelines do.
        timestep = torch.full((1,), 1000 * sigma, device=z.device, dtype=dtype)
        velocity = self.network(
            hidden_states=torch.cat([z.to(dtype), condition.known.to(dtype)], dim=1),
            timestep=timestep,
            timestep_r=torch.zeros_like(timestep) if self._mean_flow else None,
            encoder_hidden_states=condition.text.to(dtype),
            encoder_attention_mask=_all(condition.text),
            encoder_hidden_states_2=condition.glyphs.to(dtype),
            encoder_attention_mask_2=_all(condition.glyphs),
            image_embeds=condition.image.to(dtype),
            return_dict=False,
        )[0]
        return velocity.to(z.dtype)

    def impose(self, z0: Tensor, condition: Condition) -> Tensor:
        """The identity: the model redraws a given first frame."""
        return z0

    @torch.no_grad()
    def decode(self, z0: Tensor) -> Tensor:
        """The standard VAE: clean latents -> pixels [T, 3, H, W], float32 in [0, 1]; no gradient.

        See `OneNetwork` for too little memory.
        """
        return self._pixels_of((z0 / self.vae.config.scaling_factor).to(self.vae.dtype))


def _all(tokens: Tensor) -> Tensor:
    """[1, S, D] -> [1, S], True: every token counts."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
