"""What a teacher is to the rest of the house: differentiable frames in, log P("Yes") out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """Declared facts of a vision-language model; the contract tests check that they are true."""

    family: str
    size_multiple: int
    """The teacher sees frames whose height and width are multiples of this."""
    temporal_patch: int
    """Frames fused into one temporal patch."""
    layout: str
    """Which of the layouts known for this family the video's tokens have; kept with results."""
    fixed_size: tuple[int, int] | None = None
    """H, W that every frame is resized to; None where frames that fit are seen as they are."""


class Watcher(Protocol):
    """What watches frames and answers."""

    facts: TeacherFacts

    @property
    def device(self) -> torch.device: ...

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

        Full-vocabulary softmax, summed over the answer's tokens; differentiable in `frames`.
        """
        ...


class Writer(Protocol):
    """What writes text."""

    def write(self, instruction: str, images: Sequence[Image], max_new_tokens: int) -> str:
        """Greedy free text, e.g. the queries of an instance.

        Args:
            instruction: what to write.
            images: shown before the instruction, in the order it speaks of them; may be empty.
            max_new_tokens: of the reply, at most.
        """
        ...


class Teacher(Watcher, Writer, Protocol):
    """A frozen vision-language model."""
