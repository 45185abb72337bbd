"""The command, from a tar with good and bad samples to files, records, videos and curves."""

import json
import math

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.wandb_files import wandb_runs
from vlmteach.video import read_video

FILES = {
    "queries.json",
    "fit.json",
    "adapter.safetensors",
    "adapter.comfyui.safetensors",
    "base.mp4",
    "clip.mp4",
    "done.json",
    "instance.json",
    "predictions.jpg",
    "predictions.json",
    "guard.json",
}
WRITTEN = ("--query.source=teacher", "--query.max_replies=1")
GIVEN = {"goal": "Is the ball at the right edge?", "process": ["Is the ball round?"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run_fit, write_tar, sample):
    """One run over a text-only, a good, a given-queries, a bad and a file-queries instance."""
    folder = tmp_path_factory.mktemp("fit")
    own = sample(1)
    own["move/ball_01.json"] = json.dumps({"queries": GIVEN, "frames": 9, "seed": 5}).encode()
    bad = {"bad.prompt.txt": b"A picture that is none.", "bad.first.png": b"no picture"}
    text = {"words.prompt.txt": b"A ball rolls to the right."}
    tar = write_tar(folder / "data.tar", [sample(0), own, bad, text, sample(2)])
    queries = folder / "queries.jsonl"
    queries.write_text(json.dumps({"key": "move/ball_02", **GIVEN}) + "\n")
    out = folder / "out"
    output = run_fit("--instances", tar, "--out", out, "--queries", queries, *WRITTEN, expect=3)
    return tar, out, output, queries


def folders(out):
    return {p.name: p for p in out.iterdir() if p.is_dir() and p.name not in (".claims", "wandb")}


def fit_json(out, name):
    return json.loads((folders(out)[name] / "fit.json").read_text())


def test_every_good_instance_has_every_file_and_the_bad_one_a_row(finished):
    _, out, output, _ = finished
    good = {"move__ball_00", "move__ball_01", "move__ball_02", "words"}
    assert set(folders(out)) == good | {"bad"}
    for name in good:
        assert {p.name for p in folders(out)[name].iterdir()} == FILES | (
            {"first.jpg"} if name != "words" else set()
        )
    assert {p.name for p in folders(out)["bad"].iterdir()} == {"error.json"}
    row = json.loads((folders(out)["bad"] / "error.json").read_text())
    assert row["kind"] == "bad_sample"
    assert "first.png" in row["error"]
    assert "4 done, 1 failed, 0 left" in output
    assert "\r" not in output
    assert sum(" done, " in line for line in output.splitlines()) <= 6  # one an instance, one last
    assert "\nbad: " in output


def test_results_hold_one_row_per_instance(finished):
    _, out, _, _ = finished
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert [row["status"] for row in rows].count("done") == 4
    assert [row["status"] for row in rows].count("error") == 1


def test_record_tells_the_whole_fit(finished):
    _, out, _, _ = finished
    record = fit_json(out, "move__ball_01")
    assert record["stop_reason"] == "step_cap"
    assert record["steps"] == 2
    assert [reading["step"] for reading in record["readings"]] == [0, 1, 2]
    assert record["seed"] == 5
    assert record["queries"]["source"] == "sample"
    for reading in record["readings"]:
        goal, process = (-math.log(p) for p in reading["p_yes"])
        assert reading["loss"] == pytest.approx(0.5 * goal + 0.5 * process, rel=1e-5)
    assert record["versions"]["torch"] == torch.__version__
    assert record["peak_memory_gib"] > 0
    assert "outer vision tokens" in record["teacher_layout"]
    stages = {"queries", "encode", "base", "fit", "sample", "write", "guard"}
    assert set(record["seconds"]) == stages


def test_where_the_queries_came_from_is_kept(finished):
    _, out, _, _ = finished
    sources = {
        name: json.loads((folder / "queries.json").read_text())["source"]
        for name, folder in folders(out).items()
        if name != "bad"
    }
    assert sources == {
        "move__ball_00": "generic",  # a random teacher writes nothing that passes the checks
        "move__ball_01": "sample",
        "move__ball_02": "file",
        "words": "generic",
    }
    refusals = fit_json(out, "words")["queries"]["refusals"]
    assert len(refusals) == 1


def test_videos_have_the_clip_asked_for(finished):
    _, out, _, _ = finished
    for name, frames in (("move__ball_00", 5), ("move__ball_01", 9), ("words", 5)):
        clip = fit_json(out, name)["clip"]
        for file in ("base.mp4", "clip.mp4"):
            video, fps = read_video(folders(out)[name] / file)
            assert video.shape == (frames, clip["height"], clip["width"], 3)
            assert fps == clip["fps"]


def test_adapter_was_trained_and_changed_the_video(finished):
    _, out, _, _ = finished
    folder = folders(out)["move__ball_00"]
    adapter = load_file(folder / "adapter.safetensors")
    assert any(v.abs().max() > 0 for k, v in adapter.items() if "lora_B" in k)
    assert (folder / "base.mp4").read_bytes() != (folder / "clip.mp4").read_bytes()


def test_rerun_does_nothing_but_the_failures(finished, run_fit):
    tar, out, _, queries = finished
    before = {
        n: (f / "done.json").stat().st_mtime_ns for n, f in folders(out).items() if n != "bad"
    }
    arguments = ("--instances", tar, "--out", out, "--queries", queries, *WRITTEN)
    told = run_fit(*arguments, "--quiet", expect=3)
    assert [line.partition(" ")[0] for line in told.splitlines() if line] == ["bad:", "4"]
    after = {n: (f / "done.json").stat().st_mtime_ns for n, f in folders(out).items() if n != "bad"}
    assert before == after


def test_resolved_config_is_a_preset_and_another_config_is_refused(finished, run_fit):
    tar, out, _, queries = finished
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["fit"]["steps"] == 2
    assert config["reasoner"]["checkpoint"] == "builtin:random/wan"
    arguments = ("--instances", tar, "--out", out, "--queries", queries, *WRITTEN)
    output = run_fit(*arguments, "--config", out / "config.yaml", expect=3)
    assert "4 done" in output
    output = run_fit(*arguments, "--fit.learning_rate=1", expect=2)
    assert "got fit.learning_rate = 1.0, expected 0.01" in output


# ------------------------------------------------------------------------------------ W&B


def test_wandb_curves_read_back_from_the_offline_files(finished):
    _, out, _, _ = finished
    runs = wandb_runs(out / "wandb")
    assert {run["group"] for run in runs.values()} == {"out"}
    for key in ("move/ball_00", "move/ball_01", "move/ball_02", "words"):
        record = fit_json(out, key.replace("/", "__"))
        steps = [row for row in runs[key]["history"] if "loss" in row]
        assert [s["loss"] for s in steps] == pytest.approx([r["loss"] for r in record["readings"]])
        # The losses of the queries are in the file too: Eq. 4 of its P(yes).
        goal = [-math.log(reading["p_yes"][0]) for reading in record["readings"]]
        assert [s["query_loss/goal"] for s in steps] == pytest.approx(goal)
        assert {"p_yes/goal", "p_yes/process", "query_loss/process"} <= set(steps[0])
        assert {"base/path", "fitted/path"} <= set(runs[key]["history"][-1])
    assert "summary" in runs
