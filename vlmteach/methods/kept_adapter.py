"""An adapter that was kept, put to work again: one sample, nothing fitted and nobody asked."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from vlmteach.adapter_notes import ADAPTER, candidate_of, other_base, read_notes
from vlmteach.methods.base import Work
from vlmteach.types import Decision


class KeptAdapter:
    """The method of `vlmteach.apply`; the config does not name it, as it needs a file.

    Args:
        adapter: `adapter.safetensors`, or the folder it lies in.
        scale: of the update; 0 is the base model, exactly.
        candidate: which of the instance's noises to start from; None: the one of the fit.

    Raises:
        ValueError: no such file, or a scale that is no number.
    """

    name = "apply"
    adapts = True

    def __init__(self, adapter: Path, scale: float, candidate: int | None) -> None:
        self.file = adapter / ADAPTER if adapter.is_dir() else adapter
        if not math.isfinite(scale):
            raise ValueError(f"scale: got {scale}, expected a number")
        self.scale = scale
        self.notes = read_notes(self.file)
        self.candidate = candidate_of(self.notes) if candidate is None else candidate

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`. Warns of an adapter that was made for another checkpoint.

        It is not refused: it may be meant (a sibling of the same shapes), and a copy of the
        checkpoint that was saved anew has another digest, too. What cannot work is refused by the
        shapes of the matrices.
        """
        models = work.resources.models
        if difference := other_base(self.notes, models.base):
            warnings.warn(f"{self.file}: {difference}; expect another clip", stacklevel=2)
        models.lora.load_file(self.file, self.scale)
        work.sample(work.candidate(work.pose(), self.candidate), "clip")
        return Decision(candidate=self.candidate)
