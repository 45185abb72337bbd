"""InternVL3 and InternVL3.5 as a teacher, in transformers' own layout (`...-hf`, `...-HF`).

A video is a list of images, one tile each, named Frame1, Frame2, ...; its times are not told. The
language model behind the vision tower (Qwen2, Qwen3, Llama) is whatever the checkpoint says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlmteach.checkpoints.tokenizers import load_tokenizer, refuse_beyond
from vlmteach.teachers import tiles
from vlmteach.teachers.base import TeacherFacts
from vlmteach.teachers.chat import ChatTeacher, Prepared
from vlmteach.teachers.network import load_network
from vlmteach.teachers.templates import chat_template
from vlmteach.teachers.tiles import TileSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

LAYOUT = "transformers-5.23: one tile per frame, Frame1: to FrameK:"
_NAMED_TOKENS = ("start_image_token", "end_image_token", "context_image_token", "video_token")


class InternVLTeacher(ChatTeacher):
    """A frozen InternVL; made by `load`."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        template: str,
        video: TileSpec,
        image: TileSpec,
        frame_pixels: int,
        video_tokens: int | None = None,
        share_video: bool,
        checkpointing: bool,
    ) -> None:
        patch = network.config.vision_config.patch_size
        self._patch = (patch[0], patch[1])
        context: str = tokenizer.context_image_token
        self.video_placeholder = tokenizer.video_token
        # The first uploads of the conversions write <image> for an image.
        self.image_placeholder = context if context in template else "<image>"
        super().__init__(
            network,
            tokenizer,
            facts=TeacherFacts(family="internvl", layout=LAYOUT),
            template=template,
            frame_pixels=frame_pixels,
            video_tokens=video_tokens,
            share_video=share_video,
            checkpointing=checkpointing,
        )
        self._video = video
        self._image = image
        self._tile_token = context * network.config.image_seq_length

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        frame_pixels: int,
        share_video: bool,
        checkpointing: bool = False,
        video_tokens: int | None = None,
    ) -> Self:
        """A frozen teacher from a local folder or a hub id; safetensors only, no remote code.

        Args:
            checkpoint: in the layout of `OpenGVLab/InternVL3-8B-hf`.
            dtype: of the weights; the softmax is float32 at least.
            device: where everything lives.
            frame_pixels: H x W at most per frame the teacher sees: at least one tile, which is all
                that a frame gets. An image in `write` gets as many tiles as it holds.
            share_video: all queries in one pass over the video (exact); else one pass per query.
            checkpointing: recompute activations in the backward pass: less memory, one more
                forward.
            video_tokens: of a whole video at most, see `vlmteach.teachers.budget`.

        Raises:
            ValueError: the checkpoint is of another family, has dropout, lacks a preprocessor file,
                a chat template or the tokenizer's named tokens; or `frame_pixels` does not hold
                one tile.
        """
        network = load_network(checkpoint, family="internvl", dtype=dtype)
        height, width = network.config.vision_config.image_size
        image, video = tiles.tile_specs(checkpoint, (height, width))
        if frame_pixels < video.area:
            raise ValueError(
                f"frame_pixels: got {frame_pixels}, expected at least {video.area} "
                f"({height} x {width}), the one tile that InternVL sees of a frame; raise it"
            )
        tokenizer = load_tokenizer(checkpoint)
        missing = [name for name in _NAMED_TOKENS if not hasattr(tokenizer, name)]
        if missing:
            raise ValueError(
                f"teacher {checkpoint}: got a tokenizer without {', '.join(missing)}, expected "
                "transformers' own conversion; take the checkpoint whose name ends in -hf or -HF"
            )
        shown = (tokenizer.context_image_token, network.config.image_token_id)
        refuse_beyond(tokenizer, network, image=shown)
        return cls(
            network.to(device),
            tokenizer,
            template=chat_template(checkpoint, tokenizer),
            video=video,
            image=image,
            frame_pixels=frame_pixels,
            video_tokens=video_tokens,
            share_video=share_video,
            checkpointing=checkpointing,
        )

    def _size(self, height: int, width: int, most: int) -> tuple[int, int]:
        return self._video.size

    @property
    def _token_pixels(self) -> int:
        return self._video.area // self.network.config.image_seq_length

    def _grid(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int]:
        return frames, size[0] // self._patch[0], size[1] // self._patch[1]

    def _visual(self, ids: Tensor) -> Tensor:
        return ids == self.network.config.image_token_id

    def _positions(self, ids: Tensor, times: Sequence[float], grid: Tensor) -> Tensor:
        """[1, S]: plain positions."""
        import torch

        return torch.arange(len(ids))[None]

    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        shown = self._shown(1)
        return "\n".join(f"Frame{number}: {shown}" for number in range(1, len(times) + 1))

    def _shown(self, count: int) -> str:
        """The tokens that stand for some tiles."""
        tokenizer = self.tokenizer
        return tokenizer.start_image_token + count * self._tile_token + tokenizer.end_image_token

    def _video_arguments(self, frames: Tensor, prepared: Prepared) -> dict[str, Any]:
        return {"pixel_values": tiles.frame_tiles(frames, self._video)}

    def _image_arguments(self, images: Sequence[Image]) -> tuple[list[str], dict[str, Tensor]]:
        import torch

        if not images:
            return [], {}
        cut = [self._image_tiles(image) for image in images]
        return [self._shown(len(image)) for image in cut], {"pixel_values": torch.cat(cut)}

    def _image_tiles(self, image: Image) -> Tensor:
        """[n, 3, H, W] normalised tiles of an image."""
        import numpy as np
        import torch

        rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        most = min(self._image.most, self._frame_pixels // self._image.area)
        return tiles.image_tiles(rgb, self._image, most)
