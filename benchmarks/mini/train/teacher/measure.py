"""How good a teacher is, on the tuning split: as a scorer, as a slope, and under attack."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.teacher.attack import Codec, Shown, climbed, in_latents, in_pixels
from benchmarks.mini.train.teacher.data import example, flawed
from benchmarks.mini.train.teacher.rows import Writer
from vlmteach.mini.world import Execution, Split, Task, answers, families, make, perform

_FIRES, _GOAL_WEIGHT = 0.05, 0.35
"""Loss below which a micro-fit stops, and the goal's weight in it: those of the preset `mini`."""


def judge(writer: Writer, network: Any, tasks: Sequence[Task], frames: Tensor) -> Tensor:
    """log P("Yes") of each task's queries, [B, Q], as the teacher gives it."""
    rows = writer.questions([[query.text for query in task.queries] for task in tasks])
    return writer.log_yes(network, frames, rows)


def losses(log_yes: Tensor) -> Tensor:
    """Eq. 5 with `_GOAL_WEIGHT`, [B]."""
    return -_GOAL_WEIGHT * log_yes[:, 0] - (1 - _GOAL_WEIGHT) * log_yes[:, 1:].mean(1)


def measure(
    writer: Writer,
    network: Any,
    *,
    split: Split,
    n: int,
    seed: int,
    codec: Codec | None = None,
) -> dict[str, Any]:
    """All numbers; `n` tasks per part, evenly from all families.

    Args:
        writer: of the teacher's folder.
        network: the teacher's.
        split: whose tasks.
        n: tasks.
        seed: of the tasks and videos.
        codec: where given, the teacher is climbed through it too.
    """
    rng = np.random.default_rng(seed)
    names = [family.name for family in families()]
    tasks = [make(names[i % len(names)], split, 10_000 + seed * n + i) for i in range(n)]
    out: dict[str, Any] = {"n": n}

    mixed = [example(rng, split) for _ in range(2 * n)]
    p = _told(writer, network, [x.task for x in mixed], [x.video for x in mixed]).exp().numpy()
    label = np.array([x.labels for x in mixed])
    for name, part in (("goal", slice(0, 1)), ("process", slice(1, None))):
        out[f"corr_{name}"] = _corr(p[:, part], label[:, part])
        out[f"error_{name}"] = float(np.abs(p[:, part] - label[:, part]).mean())
    out["families"] = {
        name: {
            "corr_goal": _corr(p[rows, :1], label[rows, :1]),
            "corr_process": _corr(p[rows, 1:], label[rows, 1:]),
        }
        for name in names
        if (rows := [i for i, x in enumerate(mixed) if x.task.family == name])
    }
    out["kinds"] = {
        kind: float(np.abs(p[rows] - label[rows]).mean())
        for kind in sorted({x.kind for x in mixed})
        if (rows := [i for i, x in enumerate(mixed) if x.kind == kind])
    }
    out["false_yes_mixed"] = float(((p > 0.5).all(1) & (label < 0.5).any(1)).mean())
    out["calibration"] = [
        round(float(label[inside].mean()), 3)
        for low in np.arange(0, 1, 0.2)
        if (inside := (p >= low) & (p < low + 0.2)).any()
    ]

    told = _told(writer, network, tasks, [_pixels(task.truth) for task in tasks])
    out["truth_p_goal"] = float(told[:, 0].exp().mean())
    out["truth_p_process"] = float(told[:, 1:].exp().mean())
    out["truth_fires"] = float((losses(told) <= _FIRES).float().mean())
    out["truth_families"] = {
        name: round(float(told[i :: len(names)].exp().mean()), 3) for i, name in enumerate(names)
    }
    bad = []
    for task in tasks:
        video = _pixels(perform(task, flawed(task, rng)))
        while min(answers(task, video)) > 0.5:
            video = _pixels(perform(task, flawed(task, rng)))
        bad.append(video)
    wrong = _told(writer, network, tasks, bad)
    out["auc"] = float((losses(told)[:, None] < losses(wrong)).float().mean())
    out["flawed_fires"] = float((losses(wrong) <= _FIRES).float().mean())

    alphas = np.linspace(0, 1, 11)
    curves = []
    for alpha in alphas:
        videos = [_pixels(perform(task, Execution(extent=float(alpha)))) for task in tasks]
        curves.append(_told(writer, network, tasks, videos)[:, 0])
    curve = torch.stack(curves, 1)  # [n, 11] log P of the goal
    out["alpha_p_goal"] = [round(float(x), 3) for x in curve.exp().mean(0)]
    out["alpha_log_p"] = [round(float(x), 2) for x in curve.mean(0)]
    out["alpha_log_p_families"] = {
        name: [round(float(x), 1) for x in curve[i :: len(names)].mean(0)]
        for i, name in enumerate(names)
    }
    ranks = curve.argsort(1).argsort(1).double()
    out["alpha_rank_corr"] = float(
        torch.stack(
            [torch.corrcoef(torch.stack([r, torch.arange(11.0)]))[0, 1] for r in ranks]
        ).mean()
    )
    out["alpha_rising"] = float((curve.diff(dim=1) > 0).float().mean())

    starts = [Execution(extent=float(a)) for a in rng.choice([0.5, 0.6, 0.7], n)]
    draw = torch.Generator().manual_seed(seed)
    for size in (0.1, 0.25):

        def pixels(frames: Tensor, size: float = size) -> tuple[list[Tensor], Shown]:
            most = torch.full((len(frames),), size)
            return in_pixels(frames, colour=most, pixels=10 * most, draw=draw)

        out[f"climb_pixels_{size}"] = _climb(writer, network, tasks, starts, pixels)
    if codec is not None:
        for size in (0.4, 1.0):

            def latents(
                frames: Tensor, size: float = size, codec: Codec = codec
            ) -> tuple[list[Tensor], Shown]:
                return in_latents(frames, codec, reach=torch.full((len(frames),), size), draw=draw)

            out[f"climb_latents_{size}"] = _climb(writer, network, tasks, starts, latents)
    return out


def _climb(
    writer: Writer,
    network: Any,
    tasks: list[Task],
    starts: list[Execution],
    space: Callable[[Tensor], tuple[list[Tensor], Shown]],
) -> dict[str, float]:
    """What 16 steps of ascent from unfinished executions do to the teacher and to the rules."""
    rows = []
    for at in range(0, len(tasks), 16):
        some = tasks[at : at + 16]
        videos = [_pixels(perform(t, e)) for t, e in zip(some, starts[at : at + 16], strict=True)]
        start, shown = space(_frames(videos))
        best = climbed(start, shown, lambda x, some=some: judge(writer, network, some, x), steps=16)
        with torch.no_grad():
            told = judge(writer, network, some, best)
        for task, old, video, answer in zip(
            some, videos, best.permute(0, 1, 3, 4, 2).numpy(), told, strict=True
        ):
            before, after = answers(task, old), answers(task, video)
            yes = bool((answer.exp() > 0.5).all())
            fires = float(losses(answer[None])[0]) <= _FIRES
            wrong = min(after) < 0.5
            rows.append((yes, yes and wrong, fires, fires and wrong, before[0], after[0]))
    names = ("yes", "false_yes", "fires", "false_fires", "goal_before", "goal_after")
    return dict(zip(names, np.array(rows, float).mean(0).tolist(), strict=True))


def _told(writer: Writer, network: Any, tasks: list[Task], videos: list[Any]) -> Tensor:
    out = []
    with torch.no_grad():
        for at in range(0, len(tasks), 32):
            out.append(judge(writer, network, tasks[at : at + 32], _frames(videos[at : at + 32])))
    return torch.cat(out)


def _frames(videos: Sequence[Any]) -> Tensor:
    from benchmarks.mini.train.teacher.training import to_frames

    return to_frames(list(videos))


def _pixels(video: Any) -> Any:
    return video.astype(np.float32) / 255


def _corr(a: Any, b: Any) -> float:
    a, b = a.ravel(), b.ravel()
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def written(folder: Path, split: Split, n: int) -> dict[str, float]:
    """Share of tasks whose queries the teacher writes exactly as the world words them, by family;
    `n` tasks evenly from all families."""
    from PIL import Image

    from vlmteach.queries import write_queries
    from vlmteach.types import Instance

    teacher = Writer(folder).teacher
    names = [family.name for family in families()]
    right: dict[str, list[bool]] = {name: [] for name in names}
    for i in range(n):
        task = make(names[i % len(names)], split, 20_000 + i)
        picture = Image.fromarray(task.first_frame)
        instance = Instance(task.key, task.prompt, picture, "")
        got = write_queries(teacher, instance, max_process=3, max_replies=1)
        right[task.family].append(got.queries == task.queries)
    return {name: float(np.mean(rows)) for name, rows in right.items() if rows}


def rounded(value: Any) -> Any:
    """Numbers to three places, all the way down."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(float(value), 3) if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the teacher in a checkpoint folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, help="folder with vae/, to climb through it too")
    parser.add_argument("--n", type=int, default=130)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--written", type=int, default=0, help="tasks whose queries are written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    its = Writer(options.folder)
    facts = measure(
        its,
        its.teacher.network,
        split="tuning",
        n=options.n,
        seed=options.seed,
        codec=Codec(autoencoder.load(options.recipe)) if options.recipe else None,
    )
    if options.written:
        facts["written"] = written(options.folder, "tuning", options.written)
    print(json.dumps(rounded(facts), indent=1))
