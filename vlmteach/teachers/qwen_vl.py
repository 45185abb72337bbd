"""Qwen3-VL and Qwen2.5-VL as teachers: the families differ in how a video's time is told.

Token layout as transformers 5.23 makes it, where the template's outer vision tokens stay around the
whole video.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.tokenizers import load_tokenizer, refuse_beyond
from vlmteach.teachers import pixels, processor_files
from vlmteach.teachers.base import TeacherFacts
from vlmteach.teachers.chat import ChatTeacher, Prepared
from vlmteach.teachers.pixels import PatchSpec
from vlmteach.teachers.qwen_network import Family, load_network
from vlmteach.teachers.templates import chat_template

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

LAYOUT = "transformers-5.23: outer vision tokens kept"
"""Older releases dropped the template's vision start and end tokens around a whole video."""


class QwenVLTeacher(ChatTeacher):
    """A frozen Qwen-VL; its families are made by `load`."""

    family: ClassVar[Family]
    video_placeholder = "<|video_pad|>"
    image_placeholder = "<|image_pad|>"

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        template: str,
        video: PatchSpec,
        image: PatchSpec,
        frame_pixels: int,
        video_tokens: int | None = None,
        share_video: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__(
            network,
            tokenizer,
            facts=TeacherFacts(family=self.family, layout=LAYOUT),
            template=template,
            frame_pixels=frame_pixels,
            video_tokens=video_tokens,
            share_video=share_video,
            checkpointing=checkpointing,
        )
        self._video = video
        self.together = video.temporal
        self._image = image

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
            checkpoint: in the layout of `Qwen/Qwen3-VL-4B-Instruct` or
                `Qwen/Qwen2.5-VL-3B-Instruct`, as the class says.
            dtype: of the weights; the softmax is float32 at least.
            device: where everything lives.
            frame_pixels: H x W at most per frame the teacher sees, and of an image in `write`.
            share_video: all queries in one pass over the video (exact); else one pass per query.
            checkpointing: recompute activations in the backward pass: less memory, one more
                forward.
            video_tokens: of a whole video at most, see `vlmteach.teachers.budget`.

        Raises:
            ValueError: the checkpoint is of another family, has dropout, or lacks a preprocessor
                file or a chat template; or `frame_pixels` does not hold one block of patches.
        """
        image, video = processor_files.patch_specs(checkpoint)
        pixels.smart_size(1, 1, factor=video.factor, max_pixels=frame_pixels)  # refuses too few
        tokenizer = load_tokenizer(checkpoint)
        template = chat_template(checkpoint, tokenizer)
        network = load_network(checkpoint, family=cls.family, dtype=dtype)
        ids = network.config
        refuse_beyond(
            tokenizer,
            network,
            video=(cls.video_placeholder, ids.video_token_id),
            image=(cls.image_placeholder, ids.image_token_id),
        )
        vision = ids.vision_config
        stated = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        if {(s.patch, s.merge, s.temporal) for s in (image, video)} != {stated}:
            raise CheckpointError(
                f"teacher {checkpoint}: got a preprocessor file with other patches than the vision "
                f"tower's {stated} (side, merged, frames), expected those; take the file that "
                "belongs to the weights"
            )
        return cls(
            network.to(device),
            tokenizer,
            template=template,
            video=video,
            image=image,
            frame_pixels=frame_pixels,
            video_tokens=video_tokens,
            share_video=share_video,
            checkpointing=checkpointing,
        )

    @abstractmethod
    def _time_arguments(self, times: Sequence[float]) -> dict[str, Any]:
        """What the family's position rule is told of time."""

    def _size(self, height: int, width: int, most: int) -> tuple[int, int]:
        return pixels.smart_size(height, width, factor=self._video.factor, max_pixels=most)

    @property
    def _token_pixels(self) -> int:
        return self._video.factor**2

    def _grid(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int]:
        return pixels.grid(frames, size, self._video)

    def _visual(self, ids: Tensor) -> Tensor:
        return ids == self.network.config.video_token_id

    def _positions(self, ids: Tensor, times: Sequence[float], grid: Tensor) -> Tensor:
        """[3, S] M-RoPE positions along (t, h, w)."""
        positions, _ = self.network.model.get_rope_index(
            ids[None],
            mm_token_type_ids=2 * self._visual(ids).int()[None],
            video_grid_thw=grid,
            **self._time_arguments(times),
        )
        return positions[:, 0]

    def _video_arguments(self, frames: Tensor, prepared: Prepared) -> dict[str, Any]:
        patches = pixels.patches(frames, prepared.size, self._video)
        return {"pixel_values_videos": patches, "video_grid_thw": prepared.grid}

    def _token_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.network.config.image_token_id).int()}

    def _image_arguments(self, images: Sequence[Image]) -> tuple[list[str], dict[str, Tensor]]:
        import torch

        if not images:
            return [], {}
        patches, grids = zip(*map(self._image_patches, images), strict=True)
        tokens = [self.image_placeholder * (int(g.prod()) // self._image.merge**2) for g in grids]
        return tokens, {"pixel_values": torch.cat(patches), "image_grid_thw": torch.cat(grids)}

    def _image_patches(self, image: Image) -> tuple[Tensor, Tensor]:
        """[N, D] patches and [1, 3] grid of an image; rounded to uint8 as the official path."""
        import numpy as np
        import torch

        spec = self._image
        most = min(spec.max_pixels, self._frame_pixels)
        size = pixels.smart_size(
            image.height,
            image.width,
            factor=spec.factor,
            max_pixels=most,
            min_pixels=min(spec.min_pixels, most),
        )
        frame = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        frame = (pixels.resize(frame, size) * 255).round() / 255
        patches = pixels.patches(frame, size, spec)
        return patches, torch.tensor([pixels.grid(1, size, spec)])


class Qwen3VLTeacher(QwenVLTeacher):
    """Qwen3-VL: the time of each temporal patch stands as text before it."""

    family = "qwen3_vl"

    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        t, h, w = grid[0].tolist()
        frame = "<|video_pad|>" * (h * w // self._video.merge**2)
        step = self._video.temporal
        padded = [*times, *[times[-1]] * (t * step - len(times))]
        # The mean of a patch's first and last frame, as the official processor states it.
        means = [(padded[i] + padded[i + step - 1]) / 2 for i in range(0, len(padded), step)]
        return "".join(
            f"<{mean:.1f} seconds><|vision_start|>{frame}<|vision_end|>" for mean in means
        )

    def _time_arguments(self, times: Sequence[float]) -> dict[str, Any]:
        return {}


class Qwen2_5VLTeacher(QwenVLTeacher):
    """Qwen2.5-VL: time is told by the temporal positions, in seconds per temporal patch."""

    family = "qwen2_5_vl"

    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        return "<|video_pad|>" * (int(grid.prod()) // self._video.merge**2)

    def _time_arguments(self, times: Sequence[float]) -> dict[str, Any]:
        if len(times) == 1:
            return {}
        fps = (len(times) - 1) / (times[-1] - times[0])
        return {"second_per_grid_ts": [self._video.temporal / fps]}
