"""The room left by the teacher: the miniature's pixel error as a reward in its place.

    python -m vlmteach.fit --instances tasks.tar --out runs/oracle --query.source generic \
        --reward benchmarks.mini.oracle.PixelError --fit.teacher_weight 0 --fit.threshold 0

The same reasoner, decoder, LoRA, noise and updates as the micro-fit, but the loss is a weighted
squared error to the true video, at full, half and quarter resolution. No method can know that
video: this bounds what a better teacher could bring, and is no rival.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.audit.rules import task_of
from benchmarks.mini.train.autoencoder import attention
from vlmteach.reward import Prepared, Watched

_SCALES = (1, 2, 4)
_WEIGHT = 20.0
"""Puts the loss of an unfinished video where the teacher's is, about 1."""

SETTING = {
    "reward": "benchmarks.mini.oracle.PixelError",
    "fit.teacher_weight": 0,
    "fit.threshold": 0,
    "query.source": "generic",
}
"""What differs from the config in the setting that `benchmarks.mini --oracle` adds."""


class PixelError:
    """Minus the error to the true video of a task of the miniature, which its key tells."""

    shifts = False

    def prepare(self, watched: Watched) -> Prepared:
        """The true video [T, 3, H, W] in [0, 1], and what each pixel's error counts.

        Raises:
            ValueError: an instance that is no task of the miniature, or frames that are not all of
                its clip.
        """
        task = task_of(watched.key)
        if task is None or len(watched.times) != len(task.truth):
            raise ValueError(
                f"PixelError: got the instance {watched.key!r} with {len(watched.times)} frames, "
                "expected a task of the miniature, <split>/<family>/<seed>, and all of its frames; "
                "take tasks of `vlmteach.mini.world export` and the preset mini"
            )
        truth = torch.from_numpy(task.truth).permute(0, 3, 1, 2).float() / 255  # T C H W
        batch = truth.transpose(0, 1)[None] * 2 - 1  # [1, C, T, H, W] in [-1, 1]
        weight = attention(batch)[0].transpose(0, 1)
        state = truth.to(watched.device), weight.to(watched.device)
        return Prepared(roles=("goal",), state=state)

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """[K, 3, H, W] in [0, 1] -> [1]: minus the error, at most 0."""
        truth, weight = prepared.state
        error = frames.new_zeros(())
        for scale in _SCALES:
            missed = F.avg_pool2d(frames - truth, scale)
            error = error + (F.max_pool2d(weight, scale) * missed.square()).mean()
        return -_WEIGHT * error[None]
