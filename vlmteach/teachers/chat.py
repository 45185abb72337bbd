"""What all chat models of transformers share as teachers: Eq. 4 over one packed sequence.

A family says how its pixels and its placeholder tokens are made; asking, scoring and writing are
here. Runs without torchvision: of the official processor only the tokenizer, the chat template and
the JSON files are used.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vlmteach.teachers import budget
from vlmteach.teachers.base import TeacherFacts
from vlmteach.teachers.packing import Packed, Prompt, pack
from vlmteach.teachers.templates import within_bounds

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from vlmteach.recompute import Checkpointing

ANSWER = "Yes"
"""The target answer of Eq. 4."""
INSTRUCTION = "Answer with Yes or No."
"""Follows each question, after a space."""


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


class ChatTeacher(ABC):
    """A frozen chat model: `log_p_yes` is Eq. 4 without its sign, differentiable in the frames.

    The network and tokenizer are those of transformers.
    """

    video_placeholder: str
    """What the chat template writes where a video stands."""
    image_placeholder: str
    """What it writes where an image stands."""
    together: int = 1
    """Frames of a video that share their tokens."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        facts: TeacherFacts,
        template: str,
        frame_pixels: int,
        video_tokens: int | None,
        share_video: bool,
        checkpointing: bool,
    ) -> None:
        self.network = network
        self.facts = facts
        self.answer_ids: list[int] = tokenizer.encode(ANSWER, add_special_tokens=False)
        """Tokens of the target answer; their log-probabilities are summed."""
        self.tokenizer = tokenizer
        self._template = template
        self._frame_pixels = frame_pixels
        self._budget = video_tokens
        self._share_video = share_video
        self.recompute("full" if checkpointing else "none")
        self.chat([{"type": "video"}, {"type": "text", "text": "Is it?"}])  # refuses the template

    def recompute(self, mode: Checkpointing) -> None:
        """See `vlmteach.recompute`."""
        from vlmteach.recompute import options

        self.checkpointing: Checkpointing = mode
        if mode == "none":
            self.network.activation_checkpointing_disable()
        else:
            self.network.activation_checkpointing_enable(options(mode))

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        return self.network.device

    @abstractmethod
    def _size(self, height: int, width: int, most: int) -> tuple[int, int]:
        """H, W that the teacher sees of a frame, of at most this many pixels."""

    @property
    @abstractmethod
    def _token_pixels(self) -> int:
        """Pixels of a frame in one token."""

    @abstractmethod
    def _grid(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Patches along (t, h, w) of K frames at `size`."""

    @abstractmethod
    def _video_tokens(self, times: Sequence[float], grid: Tensor) -> str:
        """What stands for `video_placeholder` in the template's text."""

    @abstractmethod
    def _visual(self, ids: Tensor) -> Tensor:
        """Which token ids stand for pixels of a video; bool, shape of `ids`."""

    @abstractmethod
    def _positions(self, ids: Tensor, times: Sequence[float], grid: Tensor) -> Tensor:
        """[S] token ids -> [axes, S] positions."""

    @abstractmethod
    def _video_arguments(self, frames: Tensor, prepared: Prepared) -> dict[str, Any]:
        """[K, 3, H, W] in [0, 1] -> what the network is given of pixels, with their gradient."""

    @abstractmethod
    def _image_arguments(self, images: Sequence[Image]) -> tuple[list[str], dict[str, Tensor]]:
        """What stands for each `image_placeholder`, and what the network is given of pixels."""

    def _token_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """What `generate` is told of the tokens besides their ids."""
        return {}

    def frames_of(self, most: int, height: int, width: int) -> int:
        """How many frames of H x W are watched, of at most `most`: fewer over `video_tokens`.

        Raises:
            ValueError: a budget in which no frame fits, or a size that the model cannot see.
        """
        return self._within(most, height, width)[0]

    def _within(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Frames and pixels per frame at most."""
        if self._budget is None:
            return frames, self._frame_pixels

        def tokens(count: int, pixels: int) -> int:
            t, *_ = self._grid(count, size := self._size(height, width, pixels))
            return t * (size[0] * size[1] // self._token_pixels)

        return budget.within(
            self._budget,
            frames,
            together=self.together,
            token_pixels=self._token_pixels,
            frame_pixels=self._frame_pixels,
            tokens=tokens,
        )

    def prepare(
        self, queries: Sequence[str], times: Sequence[float], height: int, width: int
    ) -> Prepared:
        """Tokens, positions and mask, which do not depend on pixels: built once per instance.

        Args:
            queries: Q >= 1 question texts; `INSTRUCTION` is added to each.
            times: the K >= 1 frames' times in seconds, ascending; told to the model where its
                family tells times.
            height, width: size in pixels of the frames that `log_p_yes` will be given.

        Raises:
            ValueError: no query, no frame, times that do not ascend, more frames than `frames_of`
                gives, a query that holds one of the tokenizer's special tokens, a size the model
                cannot see, a template that always thinks.
        """
        import torch

        if not queries:
            raise ValueError("queries: got none, expected at least one question")
        if not times or any(a >= b for a, b in itertools.pairwise(times)):
            raise ValueError(
                f"times: got {list(times)}, expected at least one time in seconds, ascending"
            )
        frames, most = self._within(len(times), height, width)
        if frames < len(times):
            raise ValueError(
                f"times: got {len(times)}, expected at most {frames} within teacher.video_tokens "
                f"{self._budget}; ask `frames_of` how many"
            )
        size = self._size(height, width, most)
        grid = torch.tensor([self._grid(len(times), size)])
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
        video = self._video_arguments(frames.to(self.device), prepared)
        answer = torch.tensor(self.answer_ids, device=self.device)
        scores = []
        for packed in prepared.passes:
            logits = self._logits(packed, video)  # [q * A, V]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            log_p = logits.log_softmax(-1).unflatten(0, (-1, len(answer)))  # [q, A, V]
            scores.append(log_p.gather(-1, answer.expand(len(log_p), -1)[..., None]).sum((1, 2)))
        return torch.cat(scores)

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """Greedy text in answer to an instruction about images, without special tokens.

        Each image is shrunk to at most the teacher's `frame_pixels`, and otherwise treated as the
        official image processor does. They stand before the instruction, in order. Templates that
        can be told not to think are told so.

        Raises:
            ValueError: the instruction holds one of the tokenizer's special tokens, or the
                template always thinks.
        """
        import torch

        self._refuse_special_tokens(instruction)
        pictures = [{"type": "image"} for _ in images]
        chat = self.chat([*pictures, {"type": "text", "text": instruction}])
        text, *after = chat.split(self.image_placeholder)
        tokens, vision = self._image_arguments(images)
        for shown, rest in zip(tokens, after, strict=True):
            text += shown + rest
        ids = torch.tensor([self.tokenizer.encode(text, add_special_tokens=False)])
        inputs = {"input_ids": ids, **self._token_arguments(ids), **vision}
        written = self.network.generate(
            **{name: tensor.to(self.device) for name, tensor in inputs.items()},
            attention_mask=torch.ones_like(ids, device=self.device),
            max_new_tokens=max_new_tokens,
        )
        return self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()

    def _prompt(self, query: str, times: Sequence[float], grid: Tensor) -> Prompt:
        import torch

        self._refuse_special_tokens(query)
        text = self.chat([{"type": "video"}, {"type": "text", "text": f"{query} {INSTRUCTION}"}])
        text = text.replace(self.video_placeholder, self._video_tokens(times, grid))
        ids = torch.tensor(
            self.tokenizer.encode(text, add_special_tokens=False) + self.answer_ids[:-1]
        )
        prefix = int(self._visual(ids).nonzero()[-1]) + 1
        return Prompt(ids=ids, positions=self._positions(ids, times, grid), prefix=prefix)

    def chat(self, content: list[dict[str, str]]) -> str:
        """The text of a user's turn as the chat template writes it, up to the reply.

        Args:
            content: parts, `{"type": "text", "text": ...}`, `{"type": "image"}` or
                `{"type": "video"}`.

        Raises:
            ValueError: a template that always thinks, or that leaves a placeholder out.
        """
        text: str = within_bounds(
            lambda: self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        )
        if text.rstrip().endswith("<think>"):
            raise ValueError(
                "teacher: got a chat template that opens a thought before every answer, expected "
                "the answer to come first; use an Instruct checkpoint"
            )
        placeholders = {"video": self.video_placeholder, "image": self.image_placeholder}
        for kind, placeholder in placeholders.items():
            got, expected = text.count(placeholder), sum(part["type"] == kind for part in content)
            if got != expected:
                raise ValueError(
                    f"teacher: got a chat template that writes {placeholder!r} {got} times for "
                    f"{expected} {kind}s, expected once for each; take the template that belongs "
                    "to the checkpoint"
                )
        return text

    def _refuse_special_tokens(self, text: str) -> None:
        added = self.tokenizer.added_tokens_decoder.values()
        special = [str(token) for token in added if token.special]
        special += [self.video_placeholder, self.image_placeholder]
        found = [token for token in special if token in text]
        if found:
            at = text.index(found[0])
            raise ValueError(
                f"text for the teacher: got the special token {found[0]!r} in "
                f"{text[max(at - 80, 0) : at + 80]!r}, expected plain text; remove it"
            )

    def _logits(self, packed: Packed, video: dict[str, Any]) -> Tensor:
        """[len(scored), V] logits that predict the answer's tokens."""
        # transformers recomputes activations in train mode only. These models do nothing else
        # differently in it, since loading refuses dropout.
        if self.checkpointing != "none":
            self.network.train()
        # Models with one axis of positions take them without that axis.
        positions = packed.positions[0] if len(packed.positions) == 1 else packed.positions
        try:
            output = self.network(
                input_ids=packed.ids,
                attention_mask=packed.mask,
                position_ids=positions,
                logits_to_keep=packed.scored,
                use_cache=False,
                **video,
            )
        finally:
            if self.checkpointing != "none":
                self.network.eval()
        return output.logits[0]


def _to(packed: Packed, device: torch.device) -> Packed:
    return replace(
        packed,
        ids=packed.ids.to(device),
        positions=packed.positions.to(device),
        mask=None if packed.mask is None else packed.mask.to(device),
        scored=packed.scored.to(device),
    )
