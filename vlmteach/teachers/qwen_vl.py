"""Qwen3-VL and Qwen2.5-VL as teachers: the families differ in how a video's time is told.

Runs without torchvision: of the official processor only the tokenizer, the chat template and the
JSON files are used, and the rest is `pixels` and `packing`. Token layout as transformers 5.23 makes
it, where the template's outer vision tokens stay around the whole video.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.teachers import pixels, processor_files
from vlmteach.teachers.base import TeacherFacts
from vlmteach.teachers.packing import Packed, Prompt, pack
from vlmteach.teachers.pixels import PatchSpec
from vlmteach.teachers.qwen_network import Family, load_network

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

ANSWER = "Yes"
"""The target answer of Eq. 4."""
INSTRUCTION = "Answer with Yes or No."
"""Follows each question, after a space."""
LAYOUT = "transformers-5.23: outer vision tokens kept"
"""Older releases dropped the template's vision start and end tokens around a whole video."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that the teacher reads besides pixels; made by `prepare`, on the teacher's device."""

    passes: tuple[Packed, ...]
    """One for all queries when the video is shared, else one per query."""
    queries: int
    frames: int
    source: tuple[int, int]
    """H, W of the frames given."""
    size: tuple[int, int]
    """H, W the teacher sees."""
    grid: Tensor
    """[1, 3] patches along (t, h, w)."""


class QwenVLTeacher(ABC):
    """A frozen Qwen-VL: `log_p_yes` is Eq. 4 without its sign, differentiable in the frames.

    Made by `load`. The network and tokenizer are those of transformers; the network is frozen.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        family: Family,
        template: str,
        video: PatchSpec,
        image: PatchSpec,
        frame_pixels: int,
        share_video: bool,
        checkpointing: bool,
    ) -> None:
        self.network = network
        self.facts = TeacherFacts(
            family=family,
            size_multiple=video.factor,
            temporal_patch=video.temporal,
            layout=LAYOUT,
        )
        self.answer_ids: list[int] = tokenizer.encode(ANSWER, add_special_tokens=False)
        """Tokens of the target answer; their log-probabilities are summed."""
        self._tokenizer = tokenizer
        self._template = template
        self._video = video
        self._image = image
        self._frame_pixels = frame_pixels
        self._share_video = share_video
        self._checkpointing = checkpointing

    @staticmethod
    def load(
        checkpoint: str | Path,
        *,
        family: Family,
        dtype: torch.dtype,
        device: torch.device | str,
        frame_pixels: int,
        share_video: bool,
        checkpointing: bool = False,
    ) -> QwenVLTeacher:
        """A frozen teacher from a local folder or a hub id; safetensors only, no remote code.

        Args:
            checkpoint: in the layout of `Qwen/Qwen3-VL-4B-Instruct` or
                `Qwen/Qwen2.5-VL-3B-Instruct`.
            family: which of the two.
            dtype: of the weights; the softmax is float32 at least.
            device: where everything lives.
            frame_pixels: H x W at most per frame the teacher sees, and of an image in `write`.
            share_video: all queries in one pass over the video (exact); else one pass per query.
            checkpointing: recompute activations in the backward pass: less memory, one more
                forward.

        Raises:
            ValueError: the checkpoint is of another family, has dropout, or lacks a preprocessor
                file or a chat template; or `frame_pixels` does not hold one block of patches.
        """
        from transformers import AutoTokenizer

        image, video = processor_files.patch_specs(checkpoint)
        pixels.smart_size(1, 1, factor=video.factor, max_pixels=frame_pixels)  # refuses too few
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        template = processor_files.chat_template(checkpoint, tokenizer)
        network = load_network(checkpoint, family=family, dtype=dtype, checkpointing=checkpointing)
        classes = {"qwen3_vl": Qwen3VLTeacher, "qwen2_5_vl": Qwen2_5VLTeacher}
        return classes[family](
            network.to(device),
            tokenizer,
            family=family,
            template=template,
            video=video,
            image=image,
            frame_pixels=frame_pixels,
            share_video=share_video,
            checkpointing=checkpointing,
        )

    @property
    def device(self) -> torch.device:
        return self.network.device

    def prepare(
        self, queries: Sequence[str], times: Sequence[float], height: int, width: int
    ) -> Prepared:
        """Tokens, positions and mask, which do not depend on pixels: built once per instance.

        Args:
            queries: Q >= 1 question texts; `INSTRUCTION` is added to each.
            times: the K >= 1 frames' times in seconds, ascending. They are told to the model.
            height, width: size in pixels of the frames that `log_p_yes` will be given.

        Raises:
            ValueError: no query, no frame, times that do not ascend, a query that holds one of the
                tokenizer's special tokens, a size the model cannot see, a template that always
                thinks.
        """
        import torch

        if not queries:
            raise ValueError("queries: got none, expected at least one question")
        if not times or any(a >= b for a, b in itertools.pairwise(times)):
            raise ValueError(
                f"times: got {list(times)}, expected at least one time in seconds, ascending"
            )
        size = pixels.smart_size(
            height, width, factor=self._video.factor, max_pixels=self._frame_pixels
        )
        grid = torch.tensor([pixels.grid(len(times), size, self._video)])
        prompts = [self._prompt(query, times, grid) for query in queries]
        groups = [prompts] if self._share_video else [[prompt] for prompt in prompts]
        return Prepared(
            passes=tuple(_to(pack(group, len(self.answer_ids)), self.device) for group in groups),
            queries=len(queries),
            frames=len(times),
            source=(height, width),
            size=size,
            grid=grid.to(self.device),
        )

    def log_p_yes(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """log P("Yes" | frames, query) for each query (Eq. 4, without the minus sign).

        The sum over the answer's tokens of their log-probability given the earlier ones, softmax
        over the full vocabulary in float32 (float64 where the model is).

        Args:
            frames: [K, 3, H, W] in [0, 1], float.
            prepared: from `prepare`, for this K, H and W.

        Returns:
            [Q], at most 0, with gradient to `frames`.

        Raises:
            ValueError: the frames' shape is not the one prepared for.
        """
        import torch

        expected = (prepared.frames, 3, *prepared.source)
        if tuple(frames.shape) != expected:
            raise ValueError(
                f"frames: got shape {tuple(frames.shape)}, expected {expected} as prepared; "
                "prepare again for another number or size of frames"
            )
        patches = pixels.patches(frames.to(self.device), prepared.size, self._video)
        answer = torch.tensor(self.answer_ids, device=self.device)
        scores = []
        for packed in prepared.passes:
            logits = self._logits(patches, packed, prepared.grid)  # [q * A, V]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            log_p = logits.log_softmax(-1).unflatten(0, (-1, len(answer)))  # [q, A, V]
            scores.append(log_p.gather(-1, answer.expand(len(log_p), -1)[..., None]).sum((1, 2)))
        return torch.cat(scores)

    def write(self, instruction: str, image: Image | None, max_new_tokens: int) -> str:
        """Greedy text in answer to an instruction about an image, without special tokens.

        The image is resized to at most the teacher's `frame_pixels`, and otherwise as the official
        image processor does. Templates that can be told not to think are told so.

        Raises:
            ValueError: the instruction holds one of the tokenizer's special tokens, or the
                template always thinks.
        """
        import torch

        self._refuse_special_tokens(instruction)
        content = [{"type": "text", "text": instruction}]
        vision: dict[str, Tensor] = {}
        tokens = 0
        if image is not None:
            content.insert(0, {"type": "image"})
            patches, grid = self._image_patches(image)
            tokens = int(grid.prod()) // self._image.merge**2
            vision = {"pixel_values": patches.to(self.device), "image_grid_thw": grid}
        text = self._chat(content).replace("<|image_pad|>", "<|image_pad|>" * tokens)
        ids = torch.tensor([self._tokenizer.encode(text, add_special_tokens=False)])
        kinds = (ids == self.network.config.image_token_id).int()
        inputs = {"input_ids": ids, "mm_token_type_ids": kinds, **vision}
        written = self.network.generate(
            **{name: tensor.to(self.device) for name, tensor in inputs.items()},
            attention_mask=torch.ones_like(ids, device=self.device),
            max_new_tokens=max_new_tokens,
        )
        return self._tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()

    @abstractmethod
    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        """What stands for `<|video_pad|>` in the template's text."""

    @abstractmethod
    def _time_arguments(self, times: Sequence[float]) -> dict[str, Any]:
        """What the family's position rule is told of time."""

    def _prompt(self, query: str, times: Sequence[float], grid: Tensor) -> Prompt:
        import torch

        self._refuse_special_tokens(query)
        content = [{"type": "video"}, {"type": "text", "text": f"{query} {INSTRUCTION}"}]
        text = self._chat(content)
        text = text.replace("<|video_pad|>", self._video_tokens(times, grid))
        ids = torch.tensor(
            self._tokenizer.encode(text, add_special_tokens=False) + self.answer_ids[:-1]
        )
        config = self.network.config
        is_video = ids == config.video_token_id
        positions, _ = self.network.model.get_rope_index(
            ids[None],
            mm_token_type_ids=2 * is_video.int()[None],
            video_grid_thw=grid,
            **self._time_arguments(times),
        )
        prefix = int(is_video.nonzero()[-1]) + 1
        return Prompt(ids=ids, positions=positions[:, 0], prefix=prefix)

    def _chat(self, content: list[dict[str, str]]) -> str:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        if text.rstrip().endswith("<think>"):
            raise ValueError(
                "teacher: got a chat template that opens a thought before every answer, expected "
                "the answer to come first; use an Instruct checkpoint"
            )
        return text

    def _refuse_special_tokens(self, text: str) -> None:
        special = [str(t) for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        found = [token for token in special if token in text]
        if found:
            raise ValueError(
                f"text for the teacher: got the special token {found[0]!r} in {text!r}, expected "
                "plain text; remove it"
            )

    def _logits(self, patches: Tensor, packed: Packed, grid: Tensor) -> Tensor:
        """[len(scored), V] logits that predict the answer's tokens."""
        # transformers recomputes activations in train mode only. These models do nothing else
        # differently in it, since `load` refuses dropout.
        if self._checkpointing:
            self.network.train()
        output = self.network(
            input_ids=packed.ids,
            attention_mask=packed.mask,
            position_ids=packed.positions,
            pixel_values_videos=patches,
            video_grid_thw=grid,
            logits_to_keep=packed.scored,
            use_cache=False,
        )
        if self._checkpointing:
            self.network.eval()
        return output.logits[0]

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

    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        return "<|video_pad|>" * (int(grid.prod()) // self._video.merge**2)

    def _time_arguments(self, times: Sequence[float]) -> dict[str, Any]:
        if len(times) == 1:
            return {}
        fps = (len(times) - 1) / (times[-1] - times[0])
        return {"second_per_grid_ts": [self._video.temporal / fps]}


def _to(packed: Packed, device: torch.device) -> Packed:
    return replace(
        packed,
        ids=packed.ids.to(device),
        positions=packed.positions.to(device),
        mask=None if packed.mask is None else packed.mask.to(device),
        scored=packed.scored.to(device),
    )
