"""Folders as runs leave them, made without a model: for the pages' tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlmteach.guard import Guard, Guarded, Look
from vlmteach.ledger import folder_name
from vlmteach.record import write_json
from vlmteach.rows import GUARD, SCALES
from vlmteach.scales import AtScale, Scales
from vlmteach.stills import write_still
from vlmteach.video import write_video

QUERY = "Is the ball in the box?"


def add_instance(
    run: Path,
    key: str,
    *,
    prompt="Move the ball.",
    query=QUERY,
    p_yes=(0.1, 0.4, 0.8),
    strict: bool | None = True,
    base_strict: bool | None = False,
    score=0.9,
    base_score: float | None = 0.5,
    clips=False,
    task="move",
    category="spatiality",
    more=None,
    drift: float | None = None,
    scales=None,
) -> Path:
    """A finished micro-fit of as many readings as `p_yes` has.

    Args:
        drift: of its still pixels, where it has a guard.
        scales: (scale, P(yes), the judge's, drift) of a sweep of its adapter.
    """
    folder = run / folder_name(key)
    folder.mkdir(parents=True)
    steps = len(p_yes) - 1
    queries = {"queries": [{"text": query, "role": "goal"}], "source": "teacher"}
    readings = [
        {"step": n, "loss": 1 - p, "p_yes": [p], "gradient_norm": 1.0} for n, p in enumerate(p_yes)
    ]
    clip = {"frames": 9, "height": 32, "width": 32, "fps": 8.0}
    write_json(
        folder / "instance.json", {"key": key, "prompt": prompt, "task": task, "category": category}
    )
    write_json(
        folder / "fit.json",
        {
            "key": key,
            "clip": clip,
            "queries": queries,
            "readings": readings,
            "seconds": {"fit": 1.5},
        },
    )
    measures = {"overall": score, "strict": strict, "base_overall": base_score}
    if strict is not None:
        write_json(folder / "score.json", measures | {"base_strict": base_strict} | (more or {}))
    compute = {"seconds": 2.0, "reasoner_forwards": 8, "reasoner_backwards": 2, "teacher_calls": 3}
    outcome = {"method": "micro_fit", "seed": 0, "stop_reason": "step_cap", "steps": steps}
    losses = {"first_loss": 1 - p_yes[0], "kept_loss": 1 - p_yes[-1], "kept_step": steps}
    if clips:
        for number, name in enumerate(("base", "clip")):
            frames = np.full((9, 32, 32, 3), 40 + 120 * number, np.uint8)
            write_video(folder / f"{name}.mp4", frames, 8)
        picture = Image.fromarray(np.full((32 * len(p_yes), 64, 3), 90, np.uint8))
        write_still(folder / "predictions.jpg", picture)
        told = {"steps": list(range(len(p_yes))), "frames": [0, 8], "height": 32, "width": 32}
        write_json(folder / "predictions.json", told)
        write_still(folder / "first.jpg", picture.crop((0, 0, 32, 32)))
    if drift is not None:
        write_json(folder / GUARD, Guarded(guard_with(drift), p_yes[0], p_yes[-1]))
    if scales is not None:
        (folder / "scales").mkdir()
        swept = (AtScale(scale, (p,), (j,), guard_with(d)) for scale, p, j, d in scales)
        write_json(folder / "scales" / SCALES, Scales("builtin:a/judge", tuple(swept)))
    done = {"status": "done", "key": key, "compute": compute, **outcome, **losses}
    write_json(folder / "done.json", done)
    return folder


def guard_with(drift: float) -> Guard:
    """A clip that looks as its base but for the drift of its still pixels."""
    look = Look(0.25, 1.5, 0.0042, 0.11)
    return Guard(look, look, first_drift=0.0, still_drift=drift, still_share=0.5)


def add_error(run: Path, key: str, error: str) -> None:
    """An instance that could not be solved."""
    folder = run / folder_name(key)
    folder.mkdir(parents=True)
    row = {"key": key, "status": "error", "kind": "failed", "error": error, "traceback": error}
    (folder / "error.json").write_text(json.dumps(row))


def begin(run: Path) -> Path:
    """What makes a folder a run's."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text("run:\n  seed: 0\n")
    return run
