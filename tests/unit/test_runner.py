"""The fleet around a method that fails: error rows, a sick rank that stops, others' instances."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from vlmteach import models, record, results, runner, tracking
from vlmteach.config import Config, FitConfig, WandbConfig
from vlmteach.job import Job
from vlmteach.launch import Launch, commanded
from vlmteach.ledger import Ledger
from vlmteach.methods import METHODS
from vlmteach.record import write_json
from vlmteach.types import Compute, Outcome

RECORD = {"stop_reason": "cap", "steps": 0, "kept_step": None, "kept_loss": None, "readings": []}


def cut(data):
    for key in "cde":
        (data / f"{key}.prompt.txt").unlink()


def replace(data):
    cut(data)
    (data / "z.prompt.txt").write_text("another")


def garbage(data):
    cut(data)
    (data / "a.prompt.txt").unlink()
    (data / "noise").write_bytes(b"?" * 5000)


def swallow(data):
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


ACTS = {
    "act: cut": cut,
    "act: replace": replace,
    "act: garbage": garbage,
    "act: remove": shutil.rmtree,
    "act: SIGTERM": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "act: SIGINT": lambda _: os.kill(os.getpid(), signal.SIGINT),
    "act: SIGUSR1": lambda _: os.kill(os.getpid(), signal.SIGUSR1),
    "act: swallow": swallow,
    "act: exit": lambda _: sys.exit(7),
}


class Scripted:
    """Solves an instance, or raises, as its prompt says."""

    name = "base"
    adapts = False

    def __init__(self, resources):
        pass

    def solve(self, instance, folder):
        if "fail" in instance.prompt:
            raise RuntimeError("out of luck")
        if "act" in instance.prompt:
            ACTS[instance.prompt](folder.parent.parent / "data")
        if "odd" in instance.prompt:
            raise ValueError("an instance these models cannot take")
        (folder / "clip.mp4").write_bytes(b"clip")
        write_json(folder / "fit.json", RECORD | {"key": instance.key})
        compute = Compute(1.0, 4, 0, 0, 0.5)
        return Outcome(
            key=instance.key, digest=instance.digest, method=self.name, seed=0, compute=compute
        )


def carried_out(method, resources, instance, folder, *, tell, logger, ahead):
    return method.solve(instance, folder)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "base", Scripted)
    monkeypatch.setattr(runner, "carry_out", carried_out)
    monkeypatch.setattr(models, "load", lambda config, device: None)
    monkeypatch.setattr("gc.collect", lambda: 0)  # half a second each, among all that tests import

    def go(prompts, wandb=WandbConfig(mode="disabled"), out=tmp_path / "out", steps=1):  # noqa: B008
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for key, prompt in prompts.items():
            (data / f"{key}.prompt.txt").write_text(prompt)
        config = Config(method="base", wandb=wandb, fit=FitConfig(steps=steps))
        job = Job(config, (str(data),), out)
        return runner.run(job, accelerator="cpu", shape=Launch(1, 1))

    return go


def statuses(rows):
    return {row["key"]: row["status"] for row in rows}


def test_a_failure_is_a_row_and_the_run_goes_on(run, tmp_path):
    rows, left = run({"a": "go", "b": "fail", "c": "go"})
    assert statuses(rows) == {"a": "done", "b": "error", "c": "done"}
    assert left == 0
    error = json.loads((tmp_path / "out" / "b" / "error.json").read_text())
    assert error["kind"] == "failed"
    assert error["error"] == "RuntimeError: out of luck"
    assert not (tmp_path / "out" / "b" / "done.json").exists()


def test_a_rerun_retries_the_failure_and_nothing_else(run, tmp_path):
    run({"a": "go", "b": "fail"})
    done = (tmp_path / "out" / "a" / "done.json").stat().st_mtime_ns
    rows, _ = run({"a": "go", "b": "go"})
    assert statuses(rows) == {"a": "done", "b": "done"}
    assert (tmp_path / "out" / "a" / "done.json").stat().st_mtime_ns == done
    assert not (tmp_path / "out" / "b" / "error.json").exists()


def test_a_sick_rank_stops_and_leaves_the_rest(run):
    rows, left = run({f"{n}": "fail" for n in range(6)})
    assert statuses(rows) == {"0": "error", "1": "error", "2": "error"}
    assert left == 3


def test_bad_samples_do_not_make_a_rank_sick(run):
    rows, left = run({f"{n}": "" for n in range(5)} | {"good": "go"})
    assert statuses(rows) == {**{f"{n}": "error" for n in range(5)}, "good": "done"}
    assert left == 0


def test_what_lies_in_a_sample_does_not_make_a_rank_sick(run, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.md").write_text("no member")
    rows, left = run({f"{n}": "odd" for n in range(5)} | {"good": "go"})
    assert statuses(rows) == {**{f"{n}": "error" for n in range(5)}, "good": "done"}
    assert {row["kind"] for row in rows if row["status"] == "error"} == {"bad_sample"}
    assert left == 0
    told = "members: 7 seen, 6 used, 0 of refused samples, 1 ignored (1 of another name, such as"
    assert told in capsys.readouterr().err


def test_a_success_between_failures_keeps_a_rank_well(run):
    prompts = {f"{n}": "go" if n % 3 == 2 else "fail" for n in range(8)}
    rows, left = run(prompts)
    assert len(rows) == 8
    assert left == 0


def test_a_changed_sample_is_solved_again(run, tmp_path):
    run({"a": "go"})
    before = json.loads((tmp_path / "out" / "a" / "done.json").read_text())["digest"]
    run({"a": "go elsewhere"})
    assert json.loads((tmp_path / "out" / "a" / "done.json").read_text())["digest"] != before


@pytest.mark.parametrize("act", ["cut", "replace", "garbage", "remove"])
def test_a_source_that_loses_samples_while_the_run_goes_on_gives_them_rows(run, tmp_path, act):
    rows, left = run({"a": f"act: {act}", **dict.fromkeys("bcde", "go")})
    assert left == 0
    assert rows[0]["status"] == "done"
    assert [row["key"] for row in rows] == list("abcde")
    assert rows[4]["status"] == "error"
    assert "the source has changed" in rows[4]["error"]


@pytest.mark.parametrize(
    ("act", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("swallow", 143)]
)
def test_a_signal_ends_the_run_with_its_code_rows_and_no_claim(run, tmp_path, capsys, act, code):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped, commanded():
        run({"a": "go", "b": f"act: {act}", "c": "go"})
    assert stopped.value.code == code
    told = r"(?m)^stopped by \w+; the same command does what is missing"  # not behind the bar
    assert re.search(told, capsys.readouterr().err)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    assert "a" in statuses(rows)
    assert "c" not in statuses(rows)
    book = Ledger(tmp_path / "out", launch="next", max_deaths=1)
    assert book.held(["a", "b", "c"]) == book.poisoned(["a", "b", "c"]) == []
    assert statuses(run({"b": "go"})[0]) == {"a": "done", "b": "done", "c": "done"}


def test_a_lease_is_waited_out_and_the_instance_taken(run, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "Ledger", partial(Ledger, lease_seconds=0.8))
    run({"b": "go"})
    dead = Ledger(tmp_path / "out", launch="dead", max_deaths=1).claim("a")
    assert dead is not None
    owner = json.loads(dead.path.read_text())
    dead.path.write_text(json.dumps({**owner, "machine": "one that burnt down"}))
    rows, left = run({"a": "go", "b": "go"})
    assert statuses(rows) == {"a": "done", "b": "done"}
    assert left == 0


def test_what_took_processes_with_it_comes_last(run, tmp_path):
    book = Ledger(tmp_path / "out", launch="dead", max_deaths=9)
    for _ in range(2):
        claim = book.claim("a")
        assert claim is not None
        owner = json.loads(claim.path.read_text())
        claim.path.write_text(json.dumps({**owner, "started": owner["started"] - 1}))
    run({"a": "go", "b": "go"})
    made = [(tmp_path / "out" / key / "done.json").stat().st_mtime_ns for key in "ba"]
    assert made == sorted(made)


def test_prompts_that_follow_are_looked_at_and_nothing_is_claimed(run, tmp_path, monkeypatch):
    """On a GPU, for which the meta device stands in; the models are none."""
    seen = {}

    def noted(method, resources, instance, folder, *, tell, logger, ahead):
        claims = {path.name for path in (tmp_path / "out" / ".claims").glob("?.*")}
        seen[instance.key] = list(ahead), sorted(claims)
        return method.solve(instance, folder)

    monkeypatch.setattr(runner, "carry_out", noted)
    monkeypatch.setattr(runner.InstanceSolver, "device_of_rank", lambda _: torch.device("meta"))
    dead = Ledger(tmp_path / "out", launch="dead", max_deaths=9).claim("c")
    assert dead is not None
    owner = json.loads(dead.path.read_text())
    dead.path.write_text(json.dumps({**owner, "started": owner["started"] - 1}))
    rows, left = run({"a": "go a", "b": "fail b", "c": "go c", "d": " ", "e": "go e"})
    assert left == 0
    expected = {"a": "done", "b": "error", "c": "done", "d": "error", "e": "done"}
    assert statuses(rows) == expected  # each error in its own row
    assert "prompt.txt" in rows[3]["error"]
    assert seen["a"] == (["fail b", "go c", "go e"], ["a.1", "c.1"])
    assert seen["b"][0] == ["go c", "go e"]
    assert seen["c"][0] == []  # a process died of it, or of what it looked at
    assert seen["e"][0] == []


def test_scratch_files_of_a_process_that_died_are_gone(run, tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / ".clip.mp4.4711").write_bytes(b"half")
    run({"a": "go"})
    assert not list((tmp_path / "out" / "a").glob(".*"))


@pytest.mark.parametrize("where", ["open", "finish", "summary"])
def test_the_tracker_does_not_decide_whether_an_instance_counts(run, where, tmp_path, monkeypatch):
    class Broken:
        summary = property(lambda self: self)
        config = summary

        def __getattr__(self, name):
            done = tmp_path / "out" / "a" / "done.json"
            assert where != "finish" or done.exists()  # before any logger is closed
            raise OSError(28, "disk full")

    def init(*_):
        if where == "summary" and not (tmp_path / "out" / "results.jsonl").exists():
            return SimpleNamespace(summary={}, finish=lambda **_: None)
        if where == "finish":
            return Broken()
        raise TimeoutError("nobody there")

    monkeypatch.setattr(tracking.Tracker, "_init", init)
    rows, left = run({"a": "go", "b": "go"}, WandbConfig(mode="online"))
    assert statuses(rows) == {"a": "done", "b": "done"}
    assert left == 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


def test_an_error_is_gone_with_all_it_held_before_the_cache_is_emptied(run, monkeypatch):
    class Held:
        pass

    held, alive = [], []

    def fail(self, instance, folder):
        activations = Held()
        held.append(weakref.ref(activations))
        try:
            raise MemoryError("inner")
        except MemoryError as error:
            raise torch.OutOfMemoryError("no room") from error

    monkeypatch.setattr(Scripted, "solve", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(held))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.extend(ref() for ref in held))
    rows, _ = run({"a": "go"})
    assert rows[0]["error"].startswith("OutOfMemoryError")
    assert alive == [None]


UNUSABLE = {
    "the folder is a file": lambda out: out.write_text(""),
    "its claims are a file": lambda out: (out.mkdir(), (out / ".claims").write_text("")),
    "the folder lies below a file": lambda out: (out.parent.rmdir(), out.parent.write_text("")),
    "an instance's folder is a file": lambda out: (out.mkdir(), (out / "a").write_text("")),
    "its config is a folder": lambda out: (out / "config.yaml" / "x").mkdir(parents=True),
}


@pytest.mark.parametrize("kind", [*UNUSABLE, "read-only", "full"])
def test_a_folder_that_takes_nothing_is_refused_at_the_start(run, kind, tmp_path, monkeypatch):
    out = tmp_path / "below" / "out"
    out.parent.mkdir()

    def refuse(*_, **__):
        raise OSError(*{"read-only": (30, "read-only"), "full": (28, "no space")}[kind], str(out))

    if kind in UNUSABLE:
        UNUSABLE[kind](out)
    elif kind == "read-only":  # to root, no folder is
        monkeypatch.setattr(Ledger, "claim", refuse)
    else:
        monkeypatch.setattr(record.os, "replace", refuse)
    with pytest.raises(ValueError, match=r"^--out .*: got .*, expected a folder that can be wri"):
        run({"a": "go"}, out=out)


def test_failures_alone_are_taken_up_with_another_config(run):
    run({"a": "fail", "b": "fail"})
    rows, left = run({"a": "go", "b": "go"}, steps=2)
    assert statuses(rows) == {"a": "done", "b": "done"}
    assert left == 0


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_disk_that_takes_no_more_stops_the_rank(run, error, tmp_path, monkeypatch, capsys):
    def full(path, value):
        raise (error if path.name == "done.json" else OSError)(28, "disk full", str(path))

    monkeypatch.setattr(runner, "write_json", full)
    monkeypatch.setattr(results, "write_json", full)
    rows, left = run(dict.fromkeys("abcd", "go"))
    assert (rows, left) == ([], 4)
    assert capsys.readouterr().err.count("warning: ") == 3
    claims = list((tmp_path / "out" / ".claims").glob("[abcd].*"))
    assert len(claims) == 3
    assert all(claim.stat().st_mtime < 1 for claim in claims)  # let go


def test_other_settings_from_elsewhere_stop_a_run_before_its_next_claim(run, monkeypatch, tmp_path):
    solve = Scripted.solve

    def overtaken(self, instance, folder):
        (tmp_path / "out" / "config.yaml").write_text("fit: {steps: 4}")
        return solve(self, instance, folder)

    monkeypatch.setattr(Scripted, "solve", overtaken)
    with pytest.raises(ValueError, match=r"--out .*config\.yaml"):
        run({"a": "go", "b": "go"})
    assert not (tmp_path / "out" / "b").exists()


def test_a_run_that_is_refused_leaves_the_one_before_as_it_was(monkeypatch, tmp_path):
    def method(name, resources):
        if name == "refuses":
            raise ValueError("not with these models")
        return name

    monkeypatch.setattr(runner, "load_method", method)
    monkeypatch.setattr(models, "load", lambda config, device: None)
    monkeypatch.setattr(models, "are_shared", lambda *_: True)
    monkeypatch.setattr(runner.InstanceSolver, "device_of_rank", lambda _: torch.device("cpu"))
    good, bad = (SimpleNamespace(job=SimpleNamespace(config=Config()), queries={}) for _ in "ab")
    bad.job.config = SimpleNamespace(method="refuses", run=Config().run)
    solver = runner.InstanceSolver([good, bad])  # pyright: ignore[reportArgumentType]
    solver._turn_to(good)  # pyright: ignore[reportArgumentType]
    before = (solver.run, solver.method, solver.resources)
    with pytest.raises(ValueError, match="not with these"):
        solver._turn_to(bad)  # pyright: ignore[reportArgumentType]
    assert (solver.run, solver.method, solver.resources) == before
    assert solver.run is good


def test_an_exit_in_a_class_of_the_users_is_that_instances_error(run):
    rows, left = run({"a": "go", "b": "act: exit", "c": "go"})
    assert statuses(rows) == {"a": "done", "b": "error", "c": "done"}
    assert left == 0
