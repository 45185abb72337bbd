"""A reward of your own beside the teacher's: the border of the picture stays as it was.

python -m examples.own_reward runs/reward

From the command line: `--reward examples.own_reward.Border --reward.weight 5`.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import vlmteach
from vlmteach.builtin.paths import DEMO
from vlmteach.instances import decode, read_samples
from vlmteach.reward import Prepared, Watched


class Border:
    """Minus the mean squared difference of the outermost pixels to the first frame's, [1].

    Args:
        width: of the border, pixels.
    """

    shifts = False  # it compares pixels, so it must see them in place

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def prepare(self, watched: Watched) -> Prepared:
        """The first frame at the size of the clip, and where its border lies.

        Raises:
            ValueError: an instance without a first frame.
        """
        if watched.first_frame is None:
            raise ValueError("Border: got no first frame, expected one; leave the reward out")
        image = watched.first_frame.convert("RGB")
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) / 255
        frame = pixels.reshape(1, image.height, image.width, 3).permute(0, 3, 1, 2)
        frame = interpolate(frame, (watched.height, watched.width), mode="area")
        mask = torch.ones(watched.height, watched.width, dtype=torch.bool)
        mask[self.width : -self.width, self.width : -self.width] = False
        state = frame.to(watched.device), mask.to(watched.device)
        return Prepared(roles=("process",), state=state)

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """[K, 3, H, W] in [0, 1] -> [1], at most 0."""
        frame, mask = prepared.state
        return -(frames - frame)[..., mask].square().mean()[None]


def main(out: Path) -> None:
    """Solves one task with both rewards and prints the share of each in the loss."""
    options = {"reward": "examples.own_reward.Border", "reward.weight": 5, "fit.steps": 8}
    models = vlmteach.load("mini", options)
    instance = decode(next(iter(read_samples([str(DEMO)]))))
    solved = vlmteach.solve(
        models, instance.prompt, instance.first_frame, key=instance.key, out=out
    )
    for reading in solved.readings:
        shares = ", ".join(f"{name} {share:.4f}" for name, share in reading.shares.items())
        print(f"update {reading.step}: {shares}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
