"""One task of the miniature solved, with your own queries, and its adapter at half its strength.

python -m examples.solve_one runs/one
"""

import sys
from pathlib import Path

import vlmteach
from vlmteach.builtin.paths import DEMO
from vlmteach.instances import decode, read_samples


def main(out: Path) -> None:
    """Leaves the instance's files in `out/fit`, and a clip at half scale in `out/half`."""
    models = vlmteach.load("mini")
    instance = decode(next(iter(read_samples([str(DEMO)]))))
    task = (instance.prompt, instance.first_frame)
    print(instance.prompt)
    solved = vlmteach.solve(
        models,
        *task,
        key=instance.key,
        out=out / "fit",
        tell=lambda reading: print(f"update {reading.step}: loss {reading.loss:.3f}"),
    )
    for number, query in enumerate(solved.queries):
        first, last = (r.p_yes[number] for r in (solved.readings[0], solved.readings[-1]))
        print(f"{first:.2f} -> {last:.2f}  {query.text}")
    half = vlmteach.apply(models, out / "fit", *task, key=instance.key, scale=0.5, out=out / "half")
    print(solved.folder / "clip.mp4", half.folder / "clip.mp4", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
