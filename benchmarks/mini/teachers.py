"""Teachers from weak to strong: how well each judges clips, against what its fits reach.

    python -m benchmarks.mini --n 26 --split tuning --seed 95 --sweep benchmarks/mini/teachers.yaml --out runs/teachers
    python -m benchmarks.mini.teachers runs/teachers --out runs/r2

A teacher's capability is measured on labelled clips that its own fits had no hand in: the base's and
those of all other settings of the sweep. The queries are the same for all, written by the preset's
teacher: what is compared is sight. The line and its R squared are those of the paper's figure.
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from benchmarks.audit.rules import task_of
from benchmarks.mini.beyond import SecondTeacher
from benchmarks.sweep import folder_of, read_sweep
from benchmarks.table.plots import figure_of
from benchmarks.table.statistics import r_squared
from benchmarks.viewer import Viewer
from vlmteach import exits
from vlmteach.ledger import DONE
from vlmteach.mini import world
from vlmteach.mini.rule_scores import by_rules
from vlmteach.record import read_json, write_json, write_text
from vlmteach.report.statistics import mean_interval, per_instance
from vlmteach.rows import CLIP
from vlmteach.video import read_video

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from vlmteach.reward import Prepared

REWARD = "benchmarks.mini.teachers.Sight"
YES = 0.5


class Sight(SecondTeacher):
    """A teacher that may see blurred.

    Args:
        checkpoint: of the teacher.
        family: of the teacher.
        sigma: of the Gaussian blur of every frame, pixels; 0 is none.
    """

    def __init__(self, checkpoint: str, family: str = "qwen3_vl", sigma: float = 0.0) -> None:
        super().__init__(checkpoint, family)
        self.sigma = sigma

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """log P("Yes") per query of the frames as it sees them, [Q]."""
        return super().scores(blurred(frames, self.sigma), prepared)


def blurred(frames: Tensor, sigma: float) -> Tensor:
    """Frames [K, C, H, W] under a Gaussian of `sigma` pixels; the border goes on outside."""
    if sigma == 0:
        return frames
    reach = int(3 * sigma + 1)
    at = torch.arange(-reach, reach + 1, dtype=frames.dtype, device=frames.device)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(frames.shape[1], 1, 1, -1)  # [C, 1, 1, taps]
    for _ in range(2):  # along W, then, transposed, along H
        padded = F.pad(frames, (reach, reach, 0, 0), mode="replicate")
        frames = F.conv2d(padded, kernel, groups=frames.shape[1]).transpose(2, 3)
    return frames


@dataclass(frozen=True, slots=True)
class Found:
    """A teacher, what it is worth as a judge, and what its fits reach."""

    setting: str
    clips: int
    """Labelled clips it was asked about."""
    accuracy: float
    """Of its yes to all queries, against the rules' strict success, 0..1."""
    auroc: float
    """Of its least P("Yes") against strict success, 0..1."""
    n: int
    """Of its own fits."""
    strict: dict[str, float]
    """Strict success of its fits, with its 95 % interval."""
    overall: dict[str, float]
    false_yes: float
    """Share of its fits that it says yes to and the rules no."""


def found(runs: Path, settings: dict[str, dict[str, Any]]) -> list[Found]:
    """Every setting of a sweep whose reward is `Sight`, in the sweep's order.

    Raises:
        ValueError: no such setting, or one without a finished instance.
    """
    clips = {name: _clips(runs / folder_of(name)) for name in settings}
    return [
        _one(name, options, clips)
        for name, options in settings.items()
        if options.get("reward") == REWARD
    ]


def _clips(setting: Path) -> list[tuple[world.Task, Path, dict[str, float | bool]]]:
    """(task, clip, its measures by the rules) of all finished instances of a setting.

    Raises:
        ValueError: there is none.
    """
    told = []
    for done in sorted(setting.glob(f"*/*/{DONE}")):
        task = task_of(read_json(done)["key"])
        if task is not None:
            clip = done.with_name(CLIP)
            told.append((task, clip, by_rules(task, clip)))
    if not told:
        raise ValueError(
            f"{setting}: got no finished task, expected a finished sweep; run it first"
        )
    return told


def _one(setting: str, options: dict[str, Any], clips: dict[str, list[Any]]) -> Found:
    from torchmetrics.classification import BinaryAUROC

    name = "reward."
    sight = Sight(**{k[len(name) :]: v for k, v in options.items() if k.startswith(name)})
    viewer = Viewer(sight.settings, torch.device("cpu"))

    def p_yes(task: world.Task, clip: Path) -> float:
        frames, fps = read_video(clip)
        shown = blurred(frames.permute(0, 3, 1, 2).float(), sight.sigma).round().byte()
        return min(viewer.p_yes(task.queries, shown.permute(0, 2, 3, 1), fps))

    others = [clip for other, its in clips.items() if other != setting for clip in its]
    told = torch.tensor([p_yes(task, clip) for task, clip, _ in others])
    right = torch.tensor([bool(scored["strict"]) for _, _, scored in others])
    own = clips[setting]
    rows = [{"key": task.key, **scored} for task, _, scored in own]
    liked = [p_yes(task, clip) > YES for task, clip, _ in own]
    return Found(
        setting=setting,
        clips=len(others),
        accuracy=((told > YES) == right).float().mean().item(),
        auroc=BinaryAUROC()(told, right.long()).item(),
        n=len(own),
        strict=mean_interval(per_instance(rows, "strict")),
        overall=mean_interval(per_instance(rows, "overall")),
        false_yes=sum(yes and not row["strict"] for yes, row in zip(liked, rows, strict=True))
        / len(own),
    )


def figure(teachers: Sequence[Found]) -> Figure:
    """Strict success of the fits against capability, by accuracy and by AUROC, with R squared."""
    drawn, axes = figure_of(9.0, 3.8, 2)
    for axis, measure in zip(axes, ("accuracy", "auroc"), strict=True):
        across = [getattr(one, measure) for one in teachers]
        up = [one.strict["mean"] for one in teachers]
        for x, one in zip(across, teachers, strict=True):
            low, high = (abs(one.strict["mean"] - one.strict[end]) for end in ("low", "high"))
            axis.errorbar(
                x, one.strict["mean"], [[low], [high]], fmt="o", capsize=3, label=one.setting
            )
        intercept, slope, explained = r_squared(across, up)
        ends = [min(across), max(across)]
        axis.plot(ends, [intercept + slope * x for x in ends], color="0.5", linewidth=1, zorder=0)
        axis.set_title(f"R² = {explained:.3f}, {len(teachers)} teachers", fontsize=10)
        axis.set_xlabel(f"{measure} on labelled clips")
    axes[0].set_ylabel("strict success of its fits, 95 % interval")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    return drawn


def text(teachers: Sequence[Found]) -> str:
    """Markdown: a row per teacher."""
    lines = [
        "| teacher | accuracy | AUROC | labelled clips | fits | strict | overall | false yes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in teachers:
        strict = f"{one.strict['mean']:.3f} [{one.strict['low']:.3f}, {one.strict['high']:.3f}]"
        lines.append(
            f"| {one.setting} | {one.accuracy:.3f} | {one.auroc:.3f} | {one.clips} | {one.n} | "
            f"{strict} | {one.overall['mean']:.3f} | {one.false_yes:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes table, figure and numbers; returns the exit code."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.teachers", description=__doc__)
    cli.add_argument("runs", type=Path, help="folder of the sweep")
    cli.add_argument("--sweep", type=Path, default=Path(__file__).with_name("teachers.yaml"))
    cli.add_argument("--out", type=Path, required=True)
    arguments = cli.parse_args()
    torch.set_num_threads(1)
    try:
        teachers = found(arguments.runs, read_sweep(arguments.sweep).settings)
        drawn = figure(teachers)
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return exits.refused(error)
    write_text(arguments.out / "teachers.md", text(teachers))
    write_json(arguments.out / "teachers.json", [asdict(one) for one in teachers])
    drawn.savefig(arguments.out / "teachers.png", dpi=150)
    print(text(teachers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
