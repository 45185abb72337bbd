"""A small sweep on the miniature and its table: two settings, three fresh tasks, rules as judge.

python -m examples.small_sweep runs/small

Three tasks show how it goes and prove nothing; `python -m benchmarks.mini` is the measurement.
"""

import sys
from pathlib import Path

from benchmarks.sweep import Sweep, run_sweep
from benchmarks.table import read_rows
from benchmarks.table.text import report
from vlmteach.instances.write import write_tar
from vlmteach.mini import world
from vlmteach.mini.rule_scores import MEASURES, rule_scores

SETTINGS = {"base": {"method": "base"}, "five updates": {"fit.steps": 5}}


def main(out: Path) -> None:
    """Runs the sweep, scores its clips by the rules, and prints the table."""
    out.mkdir(parents=True, exist_ok=True)
    tar = out / "tasks.tar"
    if not tar.exists():
        write_tar(world.export("tuning", 3, 0), tar)
    sweep = Sweep("mini", (str(tar),), SETTINGS, devices=1)
    left = run_sweep(sweep, out)
    if left:
        raise SystemExit(f"no result for some tasks in {left}; run again to resume")
    for _, _, folder in sweep.runs(out):
        rule_scores([str(tar)], folder)
    print(report(read_rows(out), list(MEASURES), "overall", "base"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
