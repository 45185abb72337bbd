"""The miniature world's measurement: methods and ablations on fresh instances, judged by rules.

    python -m benchmarks.mini --n 300 --seed 1 --out runs/mini

Exports n instances of a split from a seed, runs every setting of `benchmarks/mini/main.yaml` on
them, scores each delivered video file by the world's rules, and writes `table.md` and `table.json`
(one object per row). Beside the rules stand the views of the teacher and of two that no setting
optimises: the judge, a second model of the teacher's kind trained on other data, and the
classifier, which a user without rules could train. Resumable: the same command does what is
missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.mini import classifier, oracle
from benchmarks.mini.scoring import Views, add_capability, measure, sha256_of_weights
from benchmarks.sweep import read_sweep, run_sweep
from benchmarks.table.text import report
from benchmarks.viewer import Viewer
from vlmteach import exits
from vlmteach.instances.write import write_tar
from vlmteach.mini import world
from vlmteach.options import read_config
from vlmteach.record import write_text
from vlmteach.report import write_report
from vlmteach.teachers.loading import beside

SWEEP = Path(__file__).with_name("main.yaml")
MEASURES = (
    "goal",
    "process",
    "overall",
    "strict",
    "false_yes",
    "judge_yes",
    "judge_false_yes",
    "classifier_yes",
    "classifier_false_yes",
)
JUDGE = "builtin:mini/judge"
ORACLE = "pixel error in the teacher's place"


def export(split: world.Split, n: int, seed: int, tar: Path) -> None:
    """Writes the instances of the measurement, without queries: the teacher writes them."""
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        packed = write_tar(world.export(split, n, seed), tar)
        assert len(packed.keys) == n, packed.refused


def main() -> int:
    """Runs the sweep and writes the table; returns the exit code."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini", description=__doc__)
    cli.add_argument("--n", type=int, default=300, help="instances")
    cli.add_argument("--seed", type=int, required=True, help="of the choice of instances")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--split", choices=world.SPLITS, default="test")
    cli.add_argument("--sweep", type=Path, default=SWEEP, help="settings; `instances` is ignored")
    cli.add_argument("--config", default=None, help="another preset than the sweep's")
    cli.add_argument(
        "--judge", default=JUDGE, help="checkpoint of the judge (default: %(default)s)"
    )
    cli.add_argument(
        "--classifier",
        type=Path,
        default=classifier.SHIPPED,
        help="its weights (default: %(default)s; `none` leaves its columns out)",
    )
    cli.add_argument("--oracle", action="store_true", help=f"also a row: {ORACLE}")
    arguments = cli.parse_args()
    out = arguments.out
    tar = out / f"{arguments.split}-{arguments.n}-{arguments.seed}.tar"
    try:
        named = arguments.classifier != Path("none")
        classified = classifier.load(arguments.classifier) if named else None
        sweep = replace(read_sweep(arguments.sweep), instances=(str(tar),))
        if arguments.config is not None:
            sweep = replace(sweep, config=arguments.config)
        if arguments.oracle:
            sweep = replace(sweep, settings={**sweep.settings, ORACLE: oracle.SETTING})
        export(arguments.split, arguments.n, arguments.seed, tar)
        incomplete = run_sweep(sweep, out)
        if incomplete:
            print(f"error: no result for some instances in {incomplete}; run again to resume")
            return 3
        runs = sweep.runs(out)
        teacher = read_config(["--config", sweep.config]).teacher
        judge = beside(teacher, arguments.judge)
        torch.set_num_threads(1)
        on_cpu = torch.device("cpu")
        views = Views(
            Viewer(teacher, on_cpu),
            Viewer(judge, on_cpu),
            arguments.judge,
            sha256_of_weights(arguments.judge),
            classified,
        )
        rows = measure(runs, tar, views)
        add_capability(rows, sweep, arguments.judge)
    except (ValueError, OSError) as error:
        return exits.refused(error)
    title = f"Miniature world, {arguments.split} split, n = {arguments.n}, seed {arguments.seed}"
    told = [name for name in MEASURES if any(name in row for row in rows)]
    tables = report(rows, told, "strict", "base")
    text = f"# {title}\n\n{tables}"
    write_text(out / "table.md", text)
    write_text(out / "table.json", "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    write_report([out])  # again: now with what rules, teacher and judge say
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
