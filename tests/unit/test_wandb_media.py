"""W&B's offline files hold curves, clips, stills and the table, for a later sync."""

import json
from typing import Any

import pytest
import wandb
from PIL import Image

from tests.wandb_files import wandb_runs
from vlmteach.config import WandbConfig
from vlmteach.ledger import folder_name
from vlmteach.tracking import Tracker, told_of_runs
from vlmteach.types import Compute, Outcome
from vlmteach.wandb_media import media_of

KEY = "move/ball"
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
"""Of the watched frames, a reading each."""
RECORD = {
    **{"key": KEY, "stop_reason": "step_cap", "steps": 2, "kept_step": 2, "kept_loss": 0.1},
    "readings": [{"step": step, "loss": 0.3 - step / 10} for step in range(3)],
}


@pytest.fixture
def finished(tmp_path):
    """An instance's folder with its clips and what was watched."""
    folder = tmp_path / "out" / folder_name(KEY)
    folder.mkdir(parents=True)
    (folder / "base.mp4").write_bytes(b"base")
    (folder / "clip.mp4").write_bytes(b"clip")
    picture = Image.new("RGB", (32, 24))
    for row, colour in enumerate(COLOURS):
        picture.paste(colour, (0, 8 * row, 32, 8 * row + 8))
    picture.save(folder / "predictions.jpg", quality=95, subsampling=0)
    index = {"steps": [0, 1, 2], "frames": [0, 3, 5, 8], "height": 8, "width": 8}
    (folder / "predictions.json").write_text(json.dumps(index))
    return folder


def test_offline_files_hold_curves_clips_stills_and_the_table(finished):
    out = finished.parent
    assert told_of_runs(out) is None
    tracker = Tracker(WandbConfig(mode="offline"), out, {})
    compute = Compute(1.0, 4, 0, 0, 0.5)
    with tracker.instance(KEY) as logger:
        assert logger is not None
        for reading in RECORD["readings"]:
            logger.log_metrics({"loss": reading["loss"]}, reading["step"])
        tracker.close(logger, Outcome(key=KEY, digest="0", method="m", seed=0, compute=compute))
    missing = {**RECORD, "key": "no/clips"}
    tracker.summarize([RECORD, missing])

    wandb.teardown()  # its service may still be writing, on a busy machine
    runs = wandb_runs(out / "wandb")
    assert {name: run["group"] for name, run in runs.items()} == {KEY: "out", "summary": "out"}
    one, summary = runs[KEY], runs["summary"]
    losses = [row["loss"] for row in one["history"] if "loss" in row]
    assert losses == [reading["loss"] for reading in RECORD["readings"]]
    shown = one["history"][-1]
    files = one["path"] / "files"
    assert (files / shown["base/path"]).read_bytes() == b"base"
    assert (files / shown["fitted/path"]).read_bytes() == b"clip"
    for name, colour in (("first", COLOURS[0]), ("last", COLOURS[-1])):
        with Image.open(files / shown[f"prediction/{name}/path"]) as still:
            assert still.size == (32, 8)
            pixel: Any = still.convert("RGB").getpixel((16, 4))
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 8
    assert shown["prediction/last/caption"] == "after 2 updates"

    waiting = {a.name.split("-")[-1]: a.manifest.contents for a in summary["artifacts"]}
    assert set(waiting) == {"instances", "loss_curves_table"}
    local = {entry.path: entry.local_path for entry in waiting["instances"]}
    # What a later `wandb sync` uploads must outlive the process, whose scratch does not.
    assert not any(path.startswith(str(out / "wandb" / "scratch")) for path in local.values())
    with open(local["instances.table.json"]) as file:
        table = json.load(file)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["key"] for row in rows] == [KEY, "no/clips"]
    assert rows[0]["first_loss"] == 0.3
    for name, content in (("base", b"base"), ("fitted", b"clip")):
        with open(local[rows[0][name]["path"]], "rb") as file:
            assert file.read() == content
        assert rows[1][name] is None
    told = told_of_runs(out)
    assert told is not None
    assert f"wandb leet {out}/wandb; " in told
    assert f"wandb sync {out}/wandb/offline-run-*" in told


def test_what_an_instance_does_not_have_is_left_out(finished):
    (finished / "predictions.json").unlink()
    (finished / "base.mp4").unlink()
    assert set(media_of(finished)) == {"fitted"}
    assert media_of(finished.parent / "nobody") == {}
