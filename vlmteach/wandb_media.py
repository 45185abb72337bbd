"""What W&B shows besides curves: clips, stills, one chart and one table of all instances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmteach.ledger import folder_name
from vlmteach.record import read_object
from vlmteach.rows import BASE, CLIP, PREDICTION_INDEX, PREDICTIONS

SUMMARY_CURVES = 200
"""At most this many curves in the summary's chart, and rows with clips in its table, which holds
every instance."""
CLIPS = {"base": BASE, "fitted": CLIP}
"""Name on the dashboard -> file in an instance's folder."""


def media_of(folder: Path) -> dict[str, Any]:
    """The clips of an instance, and what was watched before its first and last update.

    Args:
        folder: the instance's; what it does not have is left out.
    """
    return {**_clips(folder), **_stills(folder)}


def _clips(folder: Path) -> dict[str, Any]:
    import wandb

    found = {name: folder / file for name, file in CLIPS.items()}
    return {name: wandb.Video(str(path)) for name, path in found.items() if path.is_file()}


def _stills(folder: Path) -> dict[str, Any]:
    import wandb
    from PIL import Image

    index, picture = folder / PREDICTION_INDEX, folder / PREDICTIONS
    laid_out = read_object(index)
    if laid_out is None or not picture.is_file():
        return {}
    steps, height = laid_out["steps"], laid_out["height"]
    stills = {}
    with Image.open(picture) as whole:
        for name, row in (("first", 0), ("last", len(steps) - 1)):
            still = whole.crop((0, row * height, whole.width, (row + 1) * height))
            caption = f"after {steps[row]} updates"
            stills[f"prediction/{name}"] = wandb.Image(still, caption=caption)
    return stills


def charts(records: Sequence[dict[str, Any]], out: Path) -> dict[str, Any]:
    """All loss curves in one chart, all instances in one table, with their clips.

    Args:
        records: `fit.json` objects.
        out: the run's output folder.
    """
    import wandb

    shown = records[:SUMMARY_CURVES]
    chart = wandb.plot.line_series(
        xs=[[reading["step"] for reading in record["readings"]] for record in shown],
        ys=[[reading["loss"] for reading in record["readings"]] for record in shown],
        keys=[record["key"] for record in shown],
        title="Loss per instance",
        xname="update",
    )
    told = ["key", "stop_reason", "steps", "kept_step", "kept_loss"]
    rows = []
    for number, record in enumerate(records):
        clips = _clips(out / folder_name(record["key"])) if number < SUMMARY_CURVES else {}
        first_loss = record["readings"][0]["loss"]
        own = [record[column] for column in told]
        rows.append([*own, first_loss, *(clips.get(name) for name in CLIPS)])
    columns: list[Any] = [*told, "first_loss", *CLIPS]
    return {"loss_curves": chart, "instances": wandb.Table(columns=columns, data=rows)}
