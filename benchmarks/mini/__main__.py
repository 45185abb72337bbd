"""The miniature world's measurement: methods and ablations on fresh instances, judged by rules.

    python -m benchmarks.mini --n 300 --seed 1 --out runs/mini

Exports n instances of a split from a seed, runs every setting of `benchmarks/mini/main.yaml` on
them, scores each delivered video file by the world's rules, and writes `table.md` and `table.json`
(one object per row). Beside the rules stand the views of the teacher and of the judge, a second
model of the teacher's kind trained on other data, which no setting optimises. Resumable: the same
command does what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mini import oracle
from benchmarks.sweep import Sweep, read_sweep, run_sweep
from benchmarks.table.text import report
from vlmteach.config import TeacherConfig
from vlmteach.instances import read_held_out
from vlmteach.instances.write import write_tar
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.options import read_config
from vlmteach.record import read_json, write_json, write_text
from vlmteach.video import read_video

SWEEP = Path(__file__).with_name("main.yaml")
MEASURES = ("goal", "process", "overall", "strict", "false_yes", "judge_yes", "judge_false_yes")
COST = ("seconds", "reasoner_forwards", "reasoner_backwards", "teacher_calls", "steps", "fallbacks")
YES = 0.5
JUDGE = "builtin:mini/judge"
ORACLE = "pixel error in the teacher's place"


class View:
    """What a vision-language model says of a delivered clip.

    The queries are the world's own for the task, the same for every setting, whatever a setting
    asked while it optimised.
    """

    def __init__(self, settings: TeacherConfig) -> None:
        import torch

        from vlmteach.teachers.loading import load_teacher

        torch.set_num_threads(1)
        self.frames = settings.frames
        self.model = load_teacher(settings, torch.device("cpu"), False)

    def p_yes(self, task: world.Task, video: np.ndarray) -> float:
        """The least P("Yes") of any query about a clip, uint8 [T, H, W, 3]."""
        import torch

        from vlmteach.watch import watch

        clip = torch.from_numpy(video)
        told = watch(self.model, clip, task.queries, fps=world.FPS, frames=self.frames)
        return float(told.exp().min())


@dataclass(frozen=True)
class Views:
    """The teacher that the settings optimise, and the judge that none does."""

    teacher: View
    judge: View
    judge_checkpoint: str


def export(split: world.Split, n: int, seed: int, tar: Path) -> None:
    """Writes the instances of the measurement, without queries: the teacher writes them."""
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        packed = write_tar(world.export(split, n, seed), tar)
        assert len(packed.keys) == n, packed.refused


def row_of(task: world.Task, video: np.ndarray, views: Views) -> dict[str, Any]:
    """The rules', the teacher's and the judge's views of one clip."""
    scored = world.score(task, video)
    told, judged = views.teacher.p_yes(task, video), views.judge.p_yes(task, video)
    return {
        "key": task.key,
        "category": task.category,
        "family": task.family,
        "goal": scored.goal,
        "process": scored.process,
        "overall": scored.overall,
        "strict": scored.strict,
        "p_yes": told,
        "false_yes": told > YES and not scored.strict,
        "judge": views.judge_checkpoint,
        "judge_p_yes": judged,
        "judge_yes": judged > YES,
        "judge_false_yes": judged > YES and not scored.strict,
    }


def rows_of_run(
    setting: str, seed: int, folder: Path, tasks: dict[str, world.Task], views: Views
) -> Iterator[dict[str, Any]]:
    """The rows of one run; where all candidates were kept, also those of an oracle's pick.

    Raises:
        FileNotFoundError: an instance has no result: the run is not complete.
    """
    for key, task in tasks.items():
        place = folder / folder_name(key)
        done = read_json(place / DONE)
        cost = {name: done["compute"].get(name, done.get(name)) for name in COST}
        shared = {"setting": setting, "seed": seed, "stop_reason": done["stop_reason"], **cost}
        kept = place / "score.json"
        if not kept.exists() or read_json(kept)[0].get("judge") != views.judge_checkpoint:
            clips = [read_video(place / "clip.mp4")[0].numpy()]
            clips += [read_video(p)[0].numpy() for p in sorted(place.glob("candidate_*.mp4"))]
            write_json(kept, [row_of(task, clip, views) for clip in clips])
        clip, *candidates = read_json(kept)
        yield {**shared, **clip}
        if candidates and done.get("selector") != "vlm_pick":
            best = max(candidates, key=lambda row: (row["strict"], row["overall"]))
            yield {**shared, **best, "setting": f"{setting}, oracle's pick"}


def measure(runs: list[tuple[str, int, Path]], tar: Path, views: Views) -> list[dict[str, Any]]:
    """Scores every run.

    Args:
        runs: (setting, seed, folder), in the order of the table.
        tar: the instances.
        views: of the sweep's own teacher, and of the judge.
    """
    metas = {held.key: held.meta for held in read_held_out(str(tar))}
    tasks = {key: world.task_of(meta) for key, meta in metas.items() if meta is not None}
    return [
        row
        for setting, seed, folder in runs
        for row in rows_of_run(setting, seed, folder, tasks, views)
    ]


def add_capability(rows: list[dict[str, Any]], sweep: Sweep, judge: str) -> None:
    """Tells each row what its setting's teacher thought of the base clip, and the rules' verdict on
    that, where the teacher is the sweep's own or the judge."""
    bases = {(row["key"], row["seed"]): row for row in rows if row["setting"] == "base"}
    for row in rows:
        base = bases.get((row["key"], row["seed"]))
        if base is None or row["setting"] not in sweep.settings:
            continue
        asked = sweep.settings[row["setting"]].get("teacher.checkpoint")
        if asked in (None, judge):
            row["base_p_yes"] = base["p_yes" if asked is None else "judge_p_yes"]
            row["base_passes"] = base["strict"]


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
    cli.add_argument("--oracle", action="store_true", help=f"also a row: {ORACLE}")
    arguments = cli.parse_args()
    out = arguments.out
    tar = out / f"{arguments.split}-{arguments.n}-{arguments.seed}.tar"
    try:
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
        judge = replace(teacher, checkpoint=arguments.judge)
        rows = measure(runs, tar, Views(View(teacher), View(judge), arguments.judge))
        add_capability(rows, sweep, arguments.judge)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    title = f"Miniature world, {arguments.split} split, n = {arguments.n}, seed {arguments.seed}"
    tables = report(rows, MEASURES, "strict", "base")
    text = f"# {title}\n\n{tables}"
    write_text(out / "table.md", text)
    write_text(out / "table.json", "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
