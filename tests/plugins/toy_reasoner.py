"""A reasoner family from outside: written against the protocols, named by its class path.

A token per latent cell, one layer of attention over cells and prompt. It knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmteach.clamp import straight_through_clamp
from vlmteach.decoders.base import DecoderFacts
from vlmteach.decoders.frames import wanted_frames
from vlmteach.reasoners.base import Condition, Place, ReasonerFacts
from vlmteach.reasoners.clips import check_first_frame, latent_shape
from vlmteach.types import ClipSpec

CHANNELS, STRIDE, FRAMES, WIDTH = 4, 8, 2, 16


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, to: Tensor) -> Tensor:
        """[1, N, D] that look, [1, S, D] that are looked at -> [1, N, D]."""
        return self.o(F.scaled_dot_product_attention(self.q(x), self.k(to), self.v(to)))


class ToyNetwork(ModelMixin, ConfigMixin, PeftAdapterMixin):
    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(CHANNELS + 1, WIDTH)
        self.look = Attention()
        self.hear = Attention()
        self.feed = nn.Linear(WIDTH, WIDTH)
        self.leave = nn.Linear(WIDTH, CHANNELS)

    def forward(self, z: Tensor, sigma: float, text: Tensor) -> Tensor:
        """[1, C, t, h, w], noise level and [1, S, D] -> the velocity, shape of `z`."""
        cells = z.flatten(2).transpose(1, 2)  # [1, t h w, C]
        x = self.enter(torch.cat([cells, torch.full_like(cells[..., :1], sigma)], dim=-1))
        x = x + self.look(x, x)
        x = x + self.hear(x, text)
        x = x + F.gelu(self.feed(x))
        return self.leave(x).transpose(1, 2).unflatten(2, z.shape[2:])


class ToyDecoder:
    """A colour per latent cell, blown up; every other clip frame is the mean of its neighbours."""

    facts = DecoderFacts(latent_channels=CHANNELS, spatial_stride=STRIDE, temporal_stride=FRAMES)

    def __init__(self, colours: Tensor) -> None:
        self.colours = colours
        """[3, C]"""

    def decode(self, z0: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        wanted = wanted_frames(z0, frames, self.facts)
        cells = torch.einsum("ic,cthw->tihw", self.colours.to(z0.dtype), z0[0])
        shown = [(cells[f // 2] + cells[(f + 1) // 2]) / 2 for f in wanted]
        pixels = 0.5 + F.interpolate(torch.stack(shown), scale_factor=STRIDE)
        return straight_through_clamp(pixels.float())


class ToyReasoner:
    facts: ReasonerFacts
    blocks: str | None = None
    lora_targets: Mapping[str, str | list[str]] = {
        "attention": ["q", "k", "v", "o"],
        "self_attention": r"look\.[qkvo]",
        "cross_attention": r"hear\.[qkvo]",
        "all_linear": r"(look|hear)\.[qkvo]|feed",
    }

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device, accepts: str) -> None:
        network: Any = ToyNetwork()
        colours = weights["colours"]
        network.load_state_dict({k: v for k, v in weights.items() if k != "colours"})
        self.network: nn.Module = network.requires_grad_(False).eval().to(device)
        self._decoder = ToyDecoder(colours.to(device))
        self._first: Tensor = network.feed.weight
        self.facts = ReasonerFacts(
            latent_channels=CHANNELS,
            spatial_stride=STRIDE,
            temporal_stride=FRAMES,
            size_multiple=STRIDE,
            accepts_image=accepts != "text",
            accepts_text_only=accepts != "image",
            holds_first_frame=True,
        )

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
        if distillation_lora is not None:
            raise ValueError(
                f"distillation_lora: got {distillation_lora!r}, expected none; drop it"
            )
        weights = {name: weight.to(dtype) for name, weight in load_file(checkpoint).items()}
        return cls(weights, device, accepts)

    @staticmethod
    def save(path: Path) -> None:
        """A checkpoint with random weights."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network: Any = ToyNetwork()
            save_file({**network.state_dict(), "colours": torch.randn(3, CHANNELS) / 4}, path)

    @staticmethod
    def variant(checkpoint: str, ladder: tuple[float, ...], rungs: range) -> object:
        return None

    def full_decoder(self, *, checkpointing: bool) -> ToyDecoder:
        return self._decoder

    @property
    def device(self) -> torch.device:
        return self._first.device

    def latent_shape(self, clip: ClipSpec) -> tuple[int, int, int, int, int]:
        return latent_shape(self.facts, clip)

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        first_frame: Image | None,
        clip: ClipSpec,
        ahead: Sequence[str] = (),
    ) -> Condition:
        self.latent_shape(clip)
        check_first_frame(self.facts, first_frame, clip)
        phase = torch.arange(1, WIDTH + 1, device=self.device) / 10
        letters = torch.tensor([float(byte) for byte in prompt.encode()], device=self.device)
        latent = None
        if first_frame is not None:
            small = first_frame.convert("RGB").resize((clip.width // STRIDE, clip.height // STRIDE))
            pixels = torch.tensor(list(small.tobytes()), device=self.device) / 255
            pixels = pixels.view(1, small.height, small.width, 3)  # 1 h w 3
            back = torch.linalg.pinv(self._decoder.colours.float())  # [C, 3]
            latent = torch.einsum("ci,bhwi->bchw", back, pixels - 0.5)[:, :, None]
        return Condition(text=torch.sin(letters[None, :, None] * phase), first_latent=latent)

    def velocity(self, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        dtype = self._first.dtype
        z_known = self.impose(z, condition).to(dtype)
        return self.network(z_known, sigma, condition.text.to(dtype)).to(z.dtype)

    def impose(self, z0: Tensor, condition: Condition) -> Tensor:
        if condition.first_latent is None:
            return z0
        return torch.cat([condition.first_latent.to(z0.dtype), z0[:, :, 1:]], dim=2)

    @torch.no_grad()
    def decode(self, z0: Tensor) -> Tensor:
        return self._decoder.decode(z0)

    @staticmethod
    def comfyui_key(module: str) -> Place:
        block, _, layer = module.partition(".")
        if (block, layer) != ("feed", "") and (
            block not in ("look", "hear") or layer not in "qkvo"
        ):
            raise ValueError(
                f"module: got {module!r}, expected feed, or look or hear with q, k, v, o"
            )
        return Place(f"toy.{module}")
