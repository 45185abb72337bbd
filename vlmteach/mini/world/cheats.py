"""Videos that do not do the task, and what the rules give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vlmteach.mini.world.draw import GROUND
from vlmteach.mini.world.scoring import score
from vlmteach.mini.world.tasks import families, make
from vlmteach.mini.world.types import FRAMES, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Video = NDArray[np.uint8]

_SHUFFLED = (5, 2, 7, 0, 8, 3, 1, 6, 4)
"""An order in which no frame keeps its place."""


def _end_jump(truth: Video) -> Video:
    video = np.repeat(truth[:1], FRAMES, axis=0)
    video[-1] = truth[-1]
    return video


CHEATS: dict[str, Callable[[Video], Video]] = {
    "static": lambda truth: np.repeat(truth[:1], FRAMES, axis=0),
    "end_jump": _end_jump,
    "end_only": lambda truth: np.repeat(truth[-1:], FRAMES, axis=0),
    "shuffled": lambda truth: truth[list(_SHUFFLED)],
    "reversed": lambda truth: truth[::-1],
    "blank": lambda truth: np.broadcast_to(np.rint(GROUND * 255).astype(np.uint8), truth.shape),
}
"""Name -> the cheat's video for a true one, uint8 [T, H, W, 3]. static: the first frame, frozen;
end_jump: the first frame until the last one, then the true last one; end_only: the true last frame
throughout."""


def table(split: Split, n: int) -> str:
    """Mean goal / process / overall of the truth and of each cheat per family, as markdown.

    Args:
        split: whose tasks.
        n: tasks per family, seeds 0 to n - 1.
    """
    names = ("truth", *CHEATS)
    lines = [
        "| category | family | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for family in families():
        tasks = [make(family.name, split, seed) for seed in range(n)]
        cells = []
        for name in names:
            alter = CHEATS.get(name, lambda truth: truth)
            scores = [score(task, alter(task.truth)) for task in tasks]
            means = [
                np.mean([getattr(s, part) for s in scores])
                for part in ("goal", "process", "overall")
            ]
            strict = sum(s.strict for s in scores)
            text = " / ".join(f"{mean:.2f}" for mean in means)
            cells.append(f"{text} ({strict})" if strict else text)
        lines.append(f"| {family.category} | {family.name} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(f"Goal / process / overall, means of {n} tasks; in brackets: strict successes.")
    return "\n".join(lines)
