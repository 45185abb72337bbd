"""The rows of the miniature's runs: what rules, teacher, judge and classifier say of each clip.

What is measured of an instance is kept in its `score.json`, the rules' part as `vlmteach.fit`
leaves it: a list of the clip's measures and those of the candidates that were kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mini.classifier import ClipClassifier
from benchmarks.sweep import Sweep
from benchmarks.viewer import Viewer
from vlmteach.checkpoints.find import find
from vlmteach.instances import read_held_out
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.mini.rule_scores import kept_scores, measures
from vlmteach.record import read_json, write_json
from vlmteach.rows import BASE, CLIP, SCORE, digest_of, row_of
from vlmteach.video import read_video

YES = 0.5
BASE_P_YES, BASE_JUDGE_P_YES = "base_p_yes", "base_judge_p_yes"
"""Of a score: both views of the instance's own `base.mp4`."""
CLASSIFIER_P_YES = "classifier_p_yes"


@dataclass(frozen=True)
class Views:
    """The teacher that the settings optimise, and two that none does: the judge and the classifier.

    All are asked the world's own queries for the task, the same for every setting, whatever a
    setting asked while it optimised.
    """

    teacher: Viewer
    judge: Viewer
    judge_checkpoint: str
    judge_sha256: str
    """Of its weights: a judge of the same name may have been another when a run was scored."""
    classifier: ClipClassifier | None = None
    """None leaves out what it says."""

    def of(self, task: world.Task, clip: Path, strict: bool) -> dict[str, Any]:
        """Both views of a delivered clip, and what they come to beside the rules' verdict.

        Args:
            task: whose queries are asked.
            clip: the file.
            strict: the rules' verdict on it.
        """
        told, judged = self.p_yes(task, clip)
        return {
            "p_yes": told,
            "false_yes": told > YES and not strict,
            "judge": self.judge_checkpoint,
            "judge_sha256": self.judge_sha256,
            "judge_p_yes": judged,
            "judge_yes": judged > YES,
            "judge_false_yes": judged > YES and not strict,
        }

    def judged(self, score: dict[str, Any]) -> bool:
        """Whether a score has the views of this very judge."""
        named = score.get("judge"), score.get("judge_sha256")
        return named == (self.judge_checkpoint, self.judge_sha256)

    def of_base(self, task: world.Task, base: Path) -> dict[str, Any]:
        """Both views of the base clip beside a delivered one; none where there is no such file."""
        if not base.exists():
            return {}
        told, judged = self.p_yes(task, base)
        return {BASE_P_YES: told, BASE_JUDGE_P_YES: judged}

    def classified(self, task: world.Task, clip: Path, strict: bool) -> dict[str, Any]:
        """The classifier's view of a clip, as `of` has the others'; none where there is none."""
        if self.classifier is None:
            return {}
        told = min(self.classifier.p_yes(task, read_video(clip)[0]))
        return {
            "classifier": self.classifier.digest,
            CLASSIFIER_P_YES: told,
            "classifier_yes": told > YES,
            "classifier_false_yes": told > YES and not strict,
        }

    def p_yes(self, task: world.Task, clip: Path) -> tuple[float, float]:
        """The teacher's and the judge's least P("Yes") of any query about a video file, 0..1."""
        frames, fps = read_video(clip)
        told, judged = (
            min(viewer.p_yes(task.queries, frames, fps)) for viewer in (self.teacher, self.judge)
        )
        return told, judged


def sha256_of_weights(checkpoint: str) -> str:
    """Of all weight files of a checkpoint: a local path, a hub id or `builtin:NAME`."""
    folder = Path(find(checkpoint, "teacher", "qwen3_vl"))
    digests = [digest_of(file) for file in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def rows_of_run(
    setting: str, folder: Path, tasks: dict[str, world.Task], views: Views
) -> Iterator[dict[str, Any]]:
    """The rows of one run; where all candidates were kept, also those of an oracle's pick, and of
    the classifier's.

    Raises:
        FileNotFoundError: an instance has no result: the run is not complete.
    """
    for key, task in tasks.items():
        place = folder / folder_name(key)
        done = read_json(place / DONE)
        told = {"stop_reason": done["stop_reason"]}
        clip, *candidates = scores_of(task, place, views)
        # In a row, it is the word of the setting's own teacher: see `add_capability`.
        clip = {name: value for name, value in clip.items() if name != BASE_P_YES}
        yield row_of(setting, done, {**clip, **told})
        if candidates and done.get("selector") != "vlm_pick":
            best = max(candidates, key=lambda row: (row["strict"], row["overall"]))
            yield row_of(f"{setting}, oracle's pick", {**done, "kept_loss": None}, {**best, **told})
            if views.classifier is not None:
                best = max(candidates, key=lambda row: row[CLASSIFIER_P_YES])
                picked = f"{setting}, classifier's pick"
                yield row_of(picked, {**done, "kept_loss": None}, {**best, **told})


def scores_of(task: world.Task, place: Path, views: Views) -> list[dict[str, Any]]:
    """An instance's `score.json`, extended by the views where they are missing."""
    kept = scores = kept_scores(task, place)
    clips, base = [place / CLIP, *sorted(place.glob("candidate_*.mp4"))], place / BASE
    if not views.judged(kept[0]):
        rules = [kept[0], *(measures(task, candidate) for candidate in clips[1:])]
        scores = [
            {**score, **views.of(task, clip, score["strict"])}
            for clip, score in zip(clips, rules, strict=True)
        ]
        scores[0] |= views.of_base(task, base)
    elif BASE_P_YES not in kept[0] and base.exists():
        scores = [{**kept[0], **views.of_base(task, base)}, *kept[1:]]
    if views.classifier is not None and scores[0].get("classifier") != views.classifier.digest:
        scores = [
            {**score, **views.classified(task, clip, score["strict"])}
            for clip, score in zip(clips, scores, strict=True)
        ]
    if scores is not kept:
        write_json(place / SCORE, scores)
    return scores


def measure(runs: list[tuple[str, int, Path]], tar: Path, views: Views) -> list[dict[str, Any]]:
    """Scores every run.

    Args:
        runs: (setting, seed, folder), in the order of the table.
        tar: the instances.
        views: of the sweep's own teacher, of the judge and of the classifier.

    Raises:
        FileNotFoundError: a run that is not complete.
    """
    metas = {held.key: held.meta for held in read_held_out(str(tar))}
    tasks = {key: world.task_of(meta) for key, meta in metas.items() if meta is not None}
    return [row for name, _, folder in runs for row in rows_of_run(name, folder, tasks, views)]


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
