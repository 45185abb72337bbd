"""A reward from outside: a bright picture at the end."""

from torch import Tensor

from vlmteach.reward import Prepared, Watched


class Bright:
    """The log of the last frame's mean, [1].

    Args:
        floor: means below it count as it, so that black has a finite score; above 0.
    """

    shifts = True

    def __init__(self, floor: float = 1e-3) -> None:
        self.floor = floor

    def prepare(self, watched: Watched) -> Prepared:
        return Prepared(roles=("goal",))

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        return frames[-1].mean().clamp(min=self.floor, max=1).log()[None]
