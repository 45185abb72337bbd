"""Rows of a run: what is reopened, given up, gathered; and JSON that any reader can parse."""

import json
import math
import os
from pathlib import Path

import pytest

from vlmteach import results
from vlmteach.instances import InstanceError, RawSample, content_digest
from vlmteach.ledger import DONE, ERROR, Ledger
from vlmteach.record import read_json, write_json, write_text
from vlmteach.rows import rows_of_run
from vlmteach.seeding import derive_seed
from vlmteach.types import Compute, Outcome


def sample(folder, key, prompt="Go."):
    (folder / f"{key}.prompt.txt").write_text(prompt)
    return RawSample(key, "source", {"prompt.txt": prompt.encode()})


def done_row(key, digest="0"):
    compute = Compute(1.0, 4, 0, 0, 0.5)
    return results.done_row(Outcome(key=key, digest=digest, method="base", seed=0, compute=compute))


@pytest.fixture
def run(tmp_path):
    """A data folder with a finished, a failed and an untouched instance; the output folder."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    raws = {key: sample(data, key) for key in ("done", "failed", "new")}
    for key in ("done", "failed"):
        (out / key).mkdir(parents=True)
    write_json(out / "done" / DONE, done_row("done", content_digest(raws["done"])))
    (out / "done" / "clip.mp4").write_bytes(b"clip")
    write_json(out / "failed" / ERROR, {"key": "failed", "status": "error", "error": "x"})
    return data, out


def test_reopen_forgets_failures_and_keeps_results(run):
    data, out = run
    results.reopen(out, [str(data)], ["done", "failed", "new"])
    assert (out / "done" / DONE).exists()
    assert not (out / "failed" / ERROR).exists()


@pytest.mark.parametrize("prompt", ["Go elsewhere.", ""])
def test_reopen_forgets_the_result_of_a_sample_that_changed(run, prompt):
    data, out = run
    sample(data, "done", prompt)
    results.reopen(out, [str(data)], ["done", "failed", "new"])
    assert not (out / "done" / DONE).exists()


def test_collect_gathers_rows_sorted_by_key(run):
    _, out = run
    rows = results.collect(out, ["new", "failed", "done"])
    assert [row["key"] for row in rows] == ["done", "failed"]
    lines = (out / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_give_up_writes_a_row_for_an_instance_that_kills_processes(tmp_path):
    ledger = Ledger(tmp_path, launch="a", max_deaths=1, lease_seconds=1)
    claim = ledger.claim("poison")
    assert claim is not None
    with claim.path.open("a") as words:
        words.write("Fatal Python error: Segmentation fault")
    os.utime(claim.path, (1000, 1000))  # silent for longer than its lease
    results.give_up(tmp_path, ["poison", "fine"], ledger)
    row = read_json(tmp_path / "poison" / ERROR)
    assert row["kind"] == "gave_up"
    assert "run.max_deaths" in row["error"]
    assert not (tmp_path / "fine").exists()


def test_error_row_names_the_kind_and_keeps_the_traceback_of_a_failure():
    raw = RawSample("k", "data.tar")
    bad = InstanceError(key="k", source="s", field="f", got="1", expected="2", remedy="fix it")
    assert results.error_row(raw, bad)["kind"] == "bad_sample"
    try:
        raise RuntimeError("out of luck")
    except RuntimeError as error:
        row = results.error_row(raw, error)
    assert row["kind"] == "failed"
    assert row["error"] == "RuntimeError: out of luck"
    assert "test_error_row" in row["traceback"]


def test_json_has_no_nan_and_is_written_whole(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"loss": math.nan, "rows": [1.5, -math.inf]})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "loss": None,
        "rows": [1.5, None],
    }
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_no_half(tmp_path, monkeypatch):
    def full(self, *_, **__):
        self.touch()
        raise OSError(28, "disk full", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


def test_scratch_names_are_no_two_processes_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in two containers
    monkeypatch.setattr(os, "replace", lambda scratch, path: seen.append(scratch))
    for _ in range(2):
        write_text(tmp_path / "x.json", "")
    assert len(set(seen)) == 2


TAMPERED = {
    "empty": b"",
    "binary": bytes(range(256)),
    "list": b"[1]",
    "no object": b"3",
    "nested": b"[" * 100_000,
    "another's": b'{"key": "other", "status": "done", "digest": "0"}',
    "no number": b'{"key": "done", "status": "done", "digest": "0", "method": "base", "seed": 0, '
    b'"compute": {"seconds": "long"}}',
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_result_that_cannot_be_read_is_no_result(run, kind):
    data, out = run
    (out / "done" / DONE).write_bytes(TAMPERED[kind])
    assert [row["key"] for row in results.collect(out, ["done", "failed"])] == ["failed"]
    assert rows_of_run("a", out) == []
    results.reopen(out, [str(data)], ["done", "failed", "new"])
    assert not (out / "done" / DONE).exists()


def test_a_result_without_its_clip_is_no_result(run):
    data, out = run
    (out / "done" / "clip.mp4").unlink()
    results.reopen(out, [str(data)], ["done", "failed", "new"])
    assert not (out / "done" / DONE).exists()


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_failure_that_cannot_be_read_has_no_row(run, kind):
    _, out = run
    (out / "failed" / ERROR).write_bytes(TAMPERED[kind])
    assert [row["key"] for row in results.collect(out, ["done", "failed"])] == ["done"]


@pytest.mark.parametrize("kind", ["empty", "binary", "list", "nested"])
def test_a_record_of_a_fit_that_cannot_be_read_is_passed_over(run, kind):
    _, out = run
    (out / "done" / "fit.json").write_bytes(TAMPERED[kind])
    assert results.fits(out, ["done"]) == []


@pytest.mark.parametrize("kind", [*TAMPERED, "empty list"])
def test_a_score_that_cannot_be_read_is_told_in_a_line(run, kind):
    _, out = run
    score = out / "done" / "score.json"
    score.write_bytes(TAMPERED.get(kind, b"[]"))
    if kind in ("another's", "no number"):
        assert len(rows_of_run("a", out)) == 1
        return
    with pytest.raises(ValueError, match=f"{score}: got .*, expected"):
        rows_of_run("a", out)


def test_an_error_that_cannot_be_kept_is_told(tmp_path, capsys):
    raw = RawSample("k", "data.tar")
    assert not results.keep_error(tmp_path / "gone", raw, RuntimeError("out of\x1b luck"))
    told = capsys.readouterr().err
    assert r"RuntimeError: out of\x1b luck" in told
    assert told.isprintable() or told.count("\n") == 1


def test_what_was_said_of_an_earlier_clip_goes(tmp_path):
    (tmp_path / "scales").mkdir()
    for name in ("guard.json", "scales/scales.json", ".clip.mp4.1"):
        (tmp_path / name).write_text("{}")
    results.make_room(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_no_utf_8_is_a_row_and_comes_back(tmp_path):
    source = os.fsdecode(b"caf\xe9/data.tar")
    raw = RawSample("k", source, {})
    assert results.keep_error(tmp_path, raw, ValueError(f"{source}: got nothing"))
    assert read_json(tmp_path / ERROR)["source"] == source
    (tmp_path / ERROR).read_text("utf-8")
    assert derive_seed(0, os.fsdecode(b"\xe9"), "noise") != derive_seed(0, "e", "noise")
