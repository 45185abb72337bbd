"""The miniature world's measurement: methods and ablations on fresh instances, judged by rules.

    python -m benchmarks.mini --n 300 --seed 1 --out runs/mini

Exports n instances of a split from a seed, runs every setting of `benchmarks/mini.yaml` on them,
scores each delivered video file by the world's rules, and writes `table.md` and `table.json` (one
object per row). Resumable: the same command does what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sweep import Sweep, read_sweep, run_sweep
from benchmarks.table import markdown, mean_interval, paired_difference, summarize
from vlmteach.instances import read_held_out
from vlmteach.instances.write import write_tar
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.record import read_json, write_json, write_text
from vlmteach.video import read_video

SWEEP = Path(__file__).with_suffix(".yaml")
MEASURES = ("goal", "process", "overall", "strict", "false_yes")
COST = ("seconds", "reasoner_forwards", "reasoner_backwards", "teacher_calls", "steps")
YES = 0.5


class TeacherView:
    """What the teacher says of a delivered clip.

    The queries are the world's own for the task, the same for every setting, whatever a setting
    asked while it optimised.
    """

    def __init__(self, config: str) -> None:
        import torch

        from vlmteach import fit
        from vlmteach.models import DTYPES, resolve
        from vlmteach.teachers.qwen_vl import QwenVLTeacher

        torch.set_num_threads(1)
        cli = fit.parser()
        arguments = fit.presets_first(["--instances", "none", "--config", config])
        settings = cli.instantiate(cli.parse_args(arguments)).teacher
        self.teacher = QwenVLTeacher.load(
            resolve(settings.checkpoint),
            family=settings.family,
            dtype=DTYPES[settings.dtype],
            device=torch.device("cpu"),
            frame_pixels=settings.frame_pixels,
            share_video=True,
        )

    def yes(self, task: world.Task, video: np.ndarray) -> bool:
        """Whether it says yes to every query about a clip, uint8 [T, H, W, 3]."""
        import torch

        frames = torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255  # T H W C -> T C H W
        times = [index / world.FPS for index in range(len(video))]
        queries = [query.text for query in task.queries]
        prepared = self.teacher.prepare(queries, times, *video.shape[1:3])
        with torch.no_grad():
            return bool((self.teacher.log_p_yes(frames, prepared).exp() > YES).all())


def export(split: world.Split, n: int, seed: int, tar: Path) -> None:
    """Writes the instances of the measurement, without queries: the teacher writes them."""
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        packed = write_tar(world.export(split, n, seed), tar)
        assert len(packed.keys) == n, packed.refused


def row_of(task: world.Task, video: np.ndarray, view: TeacherView) -> dict[str, Any]:
    """The rules' and the teacher's views of one clip."""
    scored = world.score(task, video)
    return {
        "key": task.key,
        "category": task.category,
        "family": task.family,
        "goal": scored.goal,
        "process": scored.process,
        "overall": scored.overall,
        "strict": scored.strict,
        "false_yes": not scored.strict and view.yes(task, video),
    }


def rows_of_run(
    setting: str, seed: int, folder: Path, tasks: dict[str, world.Task], view: TeacherView
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
        if not kept.exists():
            clips = [read_video(place / "clip.mp4")[0].numpy()]
            clips += [read_video(p)[0].numpy() for p in sorted(place.glob("candidate_*.mp4"))]
            write_json(kept, [row_of(task, clip, view) for clip in clips])
        clip, *candidates = read_json(kept)
        yield {**shared, **clip}
        if candidates:
            best = max(candidates, key=lambda row: (row["strict"], row["overall"]))
            yield {**shared, **best, "setting": f"{setting}, oracle's pick"}


def measure(sweep: Sweep, out: Path, tar: Path) -> list[dict[str, Any]]:
    """Scores every run of a sweep."""
    metas = {held.key: held.meta for held in read_held_out(str(tar))}
    tasks = {key: world.task_of(meta) for key, meta in metas.items() if meta is not None}
    view = TeacherView(sweep.config)
    rows = [
        row
        for setting, seed, folder in sweep.runs(out)
        for row in rows_of_run(setting, seed, folder, tasks, view)
    ]
    order = {setting: number for number, setting in enumerate(sweep.settings)}
    rows.sort(key=lambda row: order.get(row["setting"].split(", oracle")[0], len(order)))
    return rows


def report(rows: list[dict[str, Any]], title: str) -> str:
    """The measurement as Markdown: scores, differences to base, categories, cost."""
    parts = [f"# {title}\n", markdown(summarize(rows, MEASURES), MEASURES)]
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    if "base" in settings:
        lines = ["## Minus base, paired\n", "| setting | overall | strict |", "|---|---|---|"]
        for setting in settings:
            if setting != "base":
                cells = (
                    paired_difference(rows, setting, "base", name) for name in ("overall", "strict")
                )
                shown = " | ".join(
                    f"{c['mean']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells
                )
                lines.append(f"| {setting} | {shown} |")
        parts.append("\n".join(lines) + "\n")
    lines = [
        "## Overall by category\n",
        "| setting | " + " | ".join(world.CATEGORIES) + " |",
        "|---|" + "---|" * len(world.CATEGORIES),
    ]
    for setting in settings:
        cells = []
        for category in world.CATEGORIES:
            mine = [
                row["overall"]
                for row in rows
                if row["setting"] == setting and row["category"] == category
            ]
            cells.append(f"{mean_interval(mine)['mean']:.3f}" if mine else "-")
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    parts.append("\n".join(lines) + "\n")
    parts.append("## Cost per instance\n\n" + markdown(summarize(rows, COST), COST))
    return "\n".join(parts)


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini", description=__doc__)
    cli.add_argument("--n", type=int, default=300, help="instances")
    cli.add_argument("--seed", type=int, required=True, help="of the choice of instances")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--split", choices=world.SPLITS, default="test")
    cli.add_argument("--sweep", type=Path, default=SWEEP, help="settings; `instances` is ignored")
    cli.add_argument("--config", default=None, help="another preset than the sweep's")
    arguments = cli.parse_args()
    out = arguments.out
    tar = out / f"{arguments.split}-{arguments.n}-{arguments.seed}.tar"
    try:
        sweep = replace(read_sweep(arguments.sweep), instances=(str(tar),))
        if arguments.config is not None:
            sweep = replace(sweep, config=arguments.config)
        export(arguments.split, arguments.n, arguments.seed, tar)
        incomplete = run_sweep(sweep, out)
        if incomplete:
            print(f"error: no result for some instances in {incomplete}; run again to resume")
            return 3
        rows = measure(sweep, out, tar)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    title = f"Miniature world, {arguments.split} split, n = {arguments.n}, seed {arguments.seed}"
    text = report(rows, title)
    write_text(out / "table.md", text)
    write_text(out / "table.json", "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
