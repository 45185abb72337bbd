"""A benchmark from outside: how much of each clip moves.

python -m tests.plugins.toy_benchmark RUN
"""

import sys
from pathlib import Path

from vlmteach.record import write_json
from vlmteach.video import read_video


def score(run: Path) -> int:
    """Scores every finished instance of a run; returns how many there were."""
    done = sorted(run.glob("*/done.json"))
    for file in done:
        frames, _ = read_video(file.parent / "clip.mp4")
        moved = (frames[-1].float() - frames[0].float()).abs().mean().item() / 255
        write_json(file.parent / "score.json", {"moved": moved})
    return len(done)


if __name__ == "__main__":
    print(score(Path(sys.argv[1])))
