"""Rows of a run: what is reopened, given up, gathered; and JSON that any reader can parse."""

import json
import math
import os

import pytest

from vlmteach import results
from vlmteach.config import Config, FitConfig, RunConfig, WandbConfig
from vlmteach.instances import InstanceError, RawSample, content_digest
from vlmteach.ledger import DONE, ERROR, Ledger
from vlmteach.record import read_json, write_json, write_text


def sample(folder, key, prompt="Go."):
    (folder / f"{key}.prompt.txt").write_text(prompt)
    return RawSample(key, "source", {"prompt.txt": prompt.encode()})


@pytest.fixture
def run(tmp_path):
    """A data folder with a finished, a failed and an untouched instance; the output folder."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    raws = {key: sample(data, key) for key in ("done", "failed", "new")}
    for key in ("done", "failed"):
        (out / key).mkdir(parents=True)
    row = {"key": "done", "status": "done", "digest": content_digest(raws["done"])}
    write_json(out / "done" / DONE, row)
    write_json(out / "failed" / ERROR, {"key": "failed", "status": "error"})
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


def test_a_folder_with_results_is_bound_to_its_config(tmp_path):
    from vlmteach.job import bind

    bind(Config(), tmp_path)
    bind(Config(fit=FitConfig(steps=3)), tmp_path)  # no result yet: nothing to mix
    (tmp_path / "x").mkdir()
    write_json(tmp_path / "x" / DONE, {})
    bind(Config(fit=FitConfig(steps=3)), tmp_path)
    unbound = Config(
        fit=FitConfig(steps=3), run=RunConfig(max_deaths=9), wandb=WandbConfig(mode="disabled")
    )
    bind(unbound, tmp_path)
    with pytest.raises(ValueError, match=r"got fit.steps = 4, expected 3"):
        bind(Config(fit=FitConfig(steps=4)), tmp_path)
