"""How well a speaker speaks, on the tuning split: usable replies, right ones, and what it has kept.

    python -m benchmarks.mini.train.speaking.measure SPEAKER --recipe DIR

Every reply is written by `Qwen3VLTeacher.write` and read by the method's own parser.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.speaking import language, lessons
from benchmarks.mini.train.speaking.clips import CLIPS, Clips
from benchmarks.mini.train.speaking.lessons import Lesson
from benchmarks.mini.train.speaking.rows import load
from benchmarks.mini.train.teacher.attack import Codec
from benchmarks.mini.train.teacher.data import example
from benchmarks.mini.train.teacher.measure import judge, losses, rounded, written
from benchmarks.mini.train.teacher.rows import Writer
from benchmarks.mini.train.teacher.training import to_frames
from vlmteach.methods.replies import PROMPT_TOKENS, parse_pick, parse_prompt, parse_text
from vlmteach.methods.vlm_solver import parse_plan, parse_verdict
from vlmteach.mini.world import STRICT_GOAL, Split, details
from vlmteach.teachers.base import Writer as Speaker

T = TypeVar("T")


def reply_to(speaker: Speaker, lesson: Lesson, parse: Callable[[str], T]) -> T | None:
    """What a speaker's reply means; None where it cannot be used."""
    try:
        return parse(speaker.write(lesson.request, lesson.images, PROMPT_TOKENS))
    except ValueError:
        return None


def measure(speaker: Speaker, *, clips: Clips, n: int, seed: int) -> dict[str, dict[str, Any]]:
    """All numbers of the prose by kind; `usable` is the share of replies that can be used.

    Args:
        speaker: writes.
        clips: to write about, and whose split the tasks are of.
        n: requests of each kind.
        seed: of the tasks and videos.
    """
    rng = np.random.default_rng(seed)
    return {
        "rewrite": _told(speaker, lessons.rewriting(rng, clips, n), parse_prompt),
        "analyse": _analyses(speaker, clips, n, rng),
        "advise": _told(speaker, lessons.advising(rng, clips, n), parse_text),
        "improve": _told(speaker, lessons.improving(rng, clips, n), parse_prompt),
        "pick": _picks(speaker, clips, n, rng),
        "plan": _plans(speaker, clips, n, rng),
        "verify": _verdicts(speaker, clips, n, rng),
    }


def _told(speaker: Speaker, asked: Sequence[Lesson], parse: Callable[[str], str]) -> dict[str, Any]:
    """Requests of one right reply."""
    got = [reply_to(speaker, lesson, parse) for lesson in asked]
    right = [text == parse(lesson.reply) for text, lesson in zip(got, asked, strict=True)]
    return {"usable": _usable(got), "exact": float(np.mean(right))}


def _analyses(speaker: Speaker, clips: Clips, n: int, rng: Any) -> dict[str, Any]:
    got, pairs = [], []
    for _ in range(n):
        task, two = clips.some(rng, 2)
        lesson = lessons.analysis_lesson(task, lessons.some_details(task, rng), two)
        got.append(reply_to(speaker, lesson, parse_text))
        said = _faults(got[-1] or "")
        pairs += [(task, clip.faults, told) for clip, told in zip(two, said, strict=True)]
    named = {}
    for name in language.FAULTS:
        rows = [(name in true, name in told) for task, true, told in pairs if name in details(task)]
        both = sum(true and told for true, told in rows)
        true, told = (sum(row[i] for row in rows) for i in (0, 1))
        named[name] = {"has": true, "precision": _share(both, told), "recall": _share(both, true)}
    exact = [true == told for _, true, told in pairs]
    return {"usable": _usable(got), "exact": float(np.mean(exact)), "faults": named}


def _faults(analysis: str) -> tuple[set[str], set[str]]:
    """The flaws that an analysis tells of the first video and of the second."""
    _, _, rest = analysis.partition(language.VIDEOS[0])
    first, _, second = rest.partition(language.VIDEOS[1])
    one, two = ({f for f, text in language.FAULTS.items() if text in x} for x in (first, second))
    return one, two


def _picks(speaker: Speaker, clips: Clips, n: int, rng: Any) -> dict[str, Any]:
    got, right, worth = [], [], []
    while len(got) < n:
        task, some = clips.some(rng, CLIPS)
        if not lessons.clear(some):
            continue
        parse = partial(parse_pick, count=CLIPS)
        got.append(reply_to(speaker, lessons.pick_lesson(task, some), parse))
        values = [clip.scored.overall for clip in some]
        right.append(got[-1] == int(np.argmax(values)))
        worth.append((values[got[-1] or 0], float(np.mean(values)), max(values)))
    overall = dict(zip(("picked", "mean", "best"), np.mean(worth, 0).tolist(), strict=True))
    usable, accuracy = _usable(got), float(np.mean(right))
    return {"usable": usable, "accuracy": accuracy, "chance": 1 / CLIPS, "overall": overall}


def _plans(speaker: Speaker, clips: Clips, n: int, rng: Any) -> dict[str, Any]:
    got, rows = [], []
    for _ in range(n):
        task, (clip,) = clips.some(rng, 1)
        lesson = lessons.plan_lesson(task, clip, 1, 3)
        got.append(reply_to(speaker, lesson, partial(parse_plan, may_end=True)))
        rows.append(
            (clip.scored.goal >= STRICT_GOAL, got[-1] == "", got[-1] == lessons.whole(task))
        )
    facts = np.array(rows)
    done, ended = facts[:, 0], facts[:, 1]
    return {
        "usable": _usable(got),
        "done_accuracy": float((done == ended).mean()),
        "done": float(done.mean()),
        "exact": float(facts[~done & ~ended, 2].mean()),
    }


def _verdicts(speaker: Speaker, clips: Clips, n: int, rng: Any) -> dict[str, Any]:
    got, rows = [], []
    for _ in range(n):
        task, (clip,) = clips.some(rng, 1)
        lesson = lessons.verdict_lesson(task, list(details(task)), clip)
        got.append(reply_to(speaker, lesson, parse_verdict))
        rows.append((clip.accepted, got[-1] == ""))
    right, accepted = np.array(rows).T
    return {
        "usable": _usable(got),
        "accuracy": float((right == accepted).mean()),
        "right": float(right.mean()),
        "wrongly_accepted": _share(int((accepted & ~right).sum()), int((~right).sum())),
        "wrongly_rejected": _share(int((~accepted & right).sum()), int(right.sum())),
    }


def kept(speaker: Writer, teacher: Writer, *, split: Split, n: int, seed: int) -> dict[str, float]:
    """How a speaker's yes/no answers agree with the teacher's, on n videos.

    `same` is the share of answers on the same side of one half, `apart` the mean distance of the
    probabilities, and `picks` how often both find the same of five videos best.
    """
    rng = np.random.default_rng(seed)
    some = [example(rng, split) for _ in range(n)]
    frames, tasks = to_frames([item.video for item in some]), [item.task for item in some]
    with torch.no_grad():
        ours, theirs = (
            judge(writer, writer.teacher.network, tasks, frames) for writer in (speaker, teacher)
        )
    p, q = ours.exp(), theirs.exp()
    five = n // CLIPS * CLIPS
    best = [losses(told)[:five].reshape(-1, CLIPS).argmin(1) for told in (ours, theirs)]
    return {
        "same": float(((p > 0.5) == (q > 0.5)).float().mean()),
        "apart": float((p - q).abs().mean()),
        "picks": float((best[0] == best[1]).float().mean()),
    }


def _usable(got: Iterable[object]) -> float:
    return float(np.mean([value is not None for value in got]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the speaker in a checkpoint folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, required=True, help="folder with vae/ and teacher/")
    parser.add_argument("--n", type=int, default=104, help="requests of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown = Clips(Codec(autoencoder.load(options.recipe)), options.seed, "tuning")
    facts: dict[str, Any] = measure(
        load(options.folder), clips=shown, n=options.n, seed=options.seed
    )
    one, other = Writer(options.folder), Writer(options.recipe / "teacher")
    facts["answers"] = kept(one, other, split="tuning", n=options.n, seed=options.seed)
    by_family = written(options.folder, "tuning", options.n)
    facts["queries"] = {"exact": float(np.mean(list(by_family.values())))}
    print(json.dumps(rounded(facts), indent=1))
