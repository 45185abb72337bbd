"""A run that is killed, and one that is asked to stop: the rerun ends with every instance once."""

import json
import os
import signal
import time

import pytest


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_rerun_finishes_what_a_signal_stopped(
    kind, code, tmp_path, start_fit, run_fit, write_tar, sample
):
    tar = write_tar(tmp_path / "data.tar", [sample(n) for n in range(3)])
    out = tmp_path / "out"
    arguments = ("--instances", tar, "--out", out, "--wandb.mode=disabled", "--fit.steps=20")
    process = start_fit(*arguments)
    limit = time.monotonic() + 300
    while not list(out.glob("*/done.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.02)
    os.killpg(process.pid, kind)
    process.communicate()
    assert process.returncode == code
    first = {p: p.stat().st_mtime_ns for p in out.glob("*/done.json")}
    assert 1 <= len(first) < 3
    assert (out / "report.html").exists() == (kind == signal.SIGTERM)  # of what is done so far
    run_fit(*arguments)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [f"move/ball_{n:02d}" for n in range(3)]
    assert {row["status"] for row in rows} == {"done"}
    assert all(p.stat().st_mtime_ns == before for p, before in first.items())
