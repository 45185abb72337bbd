"""A sweep in a process of its own: two settings, two seeds, two instances."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHRUNK = (
    "clip.frames: 5, clip.max_pixels: 1024, teacher.frames: 4, lora.rank: 2, "
    "query.source: generic, wandb.mode: disabled"
)


def under_torchrun(*words):
    dropped = ("WANDB", "VLMTEACH_LAUNCH", "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK")
    env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m")
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, "benchmarks.sweep", *map(str, words)],
        cwd=ROOT,
        env=env | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=900)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def sweep(run_module):
    def run(*words, expect=0):
        code, output = run_module("benchmarks.sweep", *words)
        assert code == expect, output
        return output

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory, write_tar, sample):
    folder = tmp_path_factory.mktemp("sweep")
    write_tar(folder / "data.tar", [sample(number) for number in range(2)])
    (folder / "sweep.yaml").write_text(
        f"config: random\ninstances: [{folder / 'data.tar'}]\nseeds: [0, 1]\nsettings:\n"
        f"  base: {{method: base, {SHRUNK}}}\n"
        f"  one update: {{fit.steps: 1, fit.keep: last, fit.threshold: 0, {SHRUNK}}}\n"
    )
    return folder / "sweep.yaml"


@pytest.fixture(scope="module")
def out(file):
    return file.parent / "runs"


@pytest.fixture(scope="module")
def first(file, out, sweep):
    return sweep(file, "--out", out)


def ledger(out):
    rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    return {row["folder"]: row for row in rows}


def test_every_run_is_complete_and_in_the_ledger(first, out):
    rows = ledger(out)
    assert list(rows) == ["base/seed0", "base/seed1", "one-update/seed0", "one-update/seed1"]
    for folder, row in rows.items():
        assert (row["state"], row["instances"], row["done"], row["failed"]) == ("complete", 2, 2, 0)
        results = (out / folder / "results.jsonl").read_text().splitlines()
        assert [json.loads(line)["status"] for line in results] == ["done", "done"]
        assert json.loads(results[0])["seed"] == row["seed"]
    assert len({row["digest"] for row in rows.values()}) == 4
    assert "4 of 4 runs complete, 0 instances left" in first
    assert "one update, seed 1: 2 of 2 done, 0 failed; sweep: 8 of 8" in first
    clips = {path.read_bytes() for path in out.glob("*/*/*/clip.mp4")}
    assert len(clips) == 8, "another seed or setting makes another clip"


def test_only_what_is_missing_is_done_again_with_the_same_bits(first, file, out, sweep):
    lost = next((out / "one-update" / "seed1").glob("*/done.json"))
    clip = lost.parent / "clip.mp4"
    before = clip.read_bytes()
    lost.unlink()
    clip.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*/done.json")}
    assert len(stamps) == 7
    told = sweep(file, "--out", out, "--only", "one update")
    assert lost.exists()
    assert clip.read_bytes() == before, "made alone and after other runs it is the same clip"
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "2 of 2 runs complete" in told
    assert len(ledger(out)) == 4, "runs that were not asked for keep their rows"


def test_a_changed_setting_under_the_same_name_is_refused(first, file, out, sweep):
    changed = file.with_name("changed.yaml")
    changed.write_text(file.read_text().replace("fit.steps: 1", "fit.steps: 2"))
    before = (out / "runs.jsonl").read_bytes()
    told = sweep(changed, "--out", out, expect=2)
    assert "settings: 'one update', seed 0: got fit.steps = 2, expected 1 as in" in told
    assert "give the changed setting another name" in told
    assert (out / "runs.jsonl").read_bytes() == before


def test_models_that_do_not_load_leave_the_other_runs_alone(file, tmp_path, sweep):
    broken = tmp_path / "broken.yaml"
    text = file.read_text().replace("[0, 1]", "[0]")
    text = text.replace("fit.steps: 1", "fit.steps: 1, decoder.checkpoint: none.safetensors")
    broken.write_text(text)
    told = sweep(broken, "--out", tmp_path / "runs", expect=3)
    rows = ledger(tmp_path / "runs")
    assert [row["state"] for row in rows.values()] == ["complete", "missing"]
    assert "got 'none.safetensors'" in rows["one-update/seed0"]["error"]
    assert "one-update/seed0: 0 of 2 done: ValueError: checkpoint: got 'none.safetensors'" in told


def test_ranks_of_torchrun_walk_through_it_together(first, file, out, tmp_path):
    under_torchrun(file, "--out", tmp_path / "runs")
    assert {row["state"] for row in ledger(tmp_path / "runs").values()} == {"complete"}
    alone = {path.relative_to(out): path.read_bytes() for path in out.glob("*/*/*/clip.mp4")}
    for path, clip in alone.items():
        assert (tmp_path / "runs" / path).read_bytes() == clip
