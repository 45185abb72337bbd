"""What a teacher is to the rest of the house: it watches clips, and it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """Declared facts of a vision-language model; the contract tests check that they are true."""

    family: str
    layout: str
    """Which of the layouts known for this family the video's tokens have; kept with results."""


class Watcher(Protocol):
    """What is shown a clip and says how far each answer is "Yes"."""

    facts: TeacherFacts

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        ...

    def frames_of(self, most: int, height: int, width: int) -> int:
        """How many frames of a clip it watches, of at most `most`; at least 1.

        Fewer where it has a budget of tokens for a video. What it gives for its own answer is that
        answer.

        Args:
            most: frames.
            height, width: their size in pixels.
        """
        ...

    def prepare(
        self, queries: Sequence[str], times: Sequence[float], height: int, width: int
    ) -> Any:
        """Everything that does not depend on pixels, built once per instance.

        Args:
            queries: Q question texts.
            times: the K frames' times in seconds, ascending.
            height, width: size in pixels of the frames that `log_p_yes` will be given.
        """
        ...

    def log_p_yes(self, frames: Tensor, prepared: Any) -> Tensor:
        """[K, 3, H, W] in [0, 1] -> [Q] log-probabilities of the answer "Yes" (Eq. 4).

        In the order of the queries, at most 0, float32 at least, on `device`; differentiable in
        `frames`, of which each has a say. A language model's are those of its full-vocabulary
        softmax, summed over the answer's tokens.
        """
        ...


class Writer(Protocol):
    """What writes free text about images."""

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """Greedy free text, e.g. the queries of an instance.

        Args:
            instruction: what to write.
            images: shown before the instruction, in the order it speaks of them; may be empty.
            max_new_tokens: of the reply, at most.
        """
        ...


class Teacher(Watcher, Writer, Protocol):
    """A frozen vision-language model, which does both."""

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        dtype: torch.dtype,
        device: torch.device,
        frame_pixels: int,
        share_video: bool,
        checkpointing: bool,
        video_tokens: int | None = None,
    ) -> Self:
        """A frozen teacher from a local folder or a hub id; weights are never unpickled.

        Args:
            checkpoint: of this family.
            dtype: of the weights; log-probabilities are float32 at least.
            device: where everything lives.
            frame_pixels: H x W at most per frame or image the teacher sees.
            share_video: all queries in one pass over the video, where the family can; the scores
                are those of one pass per query.
            checkpointing: recompute activations in the backward pass; the same gradients.
            video_tokens: of a whole video at most, for which `frames_of` may give fewer frames;
                None: no such bound.

        Raises:
            ValueError: for a checkpoint of another kind, or a setting that does not fit it.
        """
        ...
