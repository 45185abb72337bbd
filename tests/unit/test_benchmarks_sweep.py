"""Sweep files: what they say, what is refused, and that the shipped ones are what fit takes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from benchmarks.sweep import (
    Sweep,
    first_error,
    folder_of,
    incomplete,
    options,
    read_sweep,
    run_command,
)
from vlmteach import fit, models
from vlmteach.config import (
    Config,
    DecoderConfig,
    FitConfig,
    LoraConfig,
    QueryConfig,
    ReasonerConfig,
    TeacherConfig,
)
from vlmteach.job import Job
from vlmteach.ledger import folder_name
from vlmteach.options import parse
from vlmteach.report.index import INDEX, read_index

ROOT = Path(__file__).parent.parent.parent
SHIPPED = sorted((ROOT / "benchmarks" / "sweeps").glob("*.yaml"))


def sweep(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


def configs(read, out):
    """Setting -> config of its first seed, as the command line gives it."""
    found = {}
    for setting, seed, folder in read.runs(out):
        config = parse(fit.parser(), options(read, setting, seed, folder))[1]
        found.setdefault(setting, config)
    return found


GOOD = """
config: random
instances: a.tar
seeds: [0, 1]
settings:
  base: {method: base}
  no goal query: {query.ask: process, fit.gradient: 2}
  micro-fit:
"""


def test_a_sweep_is_runs_of_the_fit_command(tmp_path):
    read = sweep(tmp_path, GOOD)
    runs = read.runs(tmp_path / "out")
    assert [(name, seed) for name, seed, _ in runs] == [
        (name, seed) for name in ("base", "no goal query", "micro-fit") for seed in (0, 1)
    ]
    assert runs[3][2] == tmp_path / "out" / "no-goal-query" / "seed1"
    words = options(read, "no goal query", 1, runs[3][2])
    job = fit.job(*parse(fit.parser(), words))
    assert (job.config.query.ask, job.config.fit.gradient, job.config.run.seed) == ("process", 2, 1)
    assert (job.sources, job.out) == (("a.tar",), runs[3][2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "got list, expected config, instances and settings"),
        ("{config: a, instances: b, settings: {}, colour: red}", "got the field 'colour'"),
        ("{config: a, instances: b, settings: {A b: {}, a-b: {}}}", "share a folder"),
        ("{config: a, instances: b, settings: [a]}", "settings: got list"),
        ("{config: a, instances: b, settings: {a: 3}}", "settings: a: got 3"),
    ],
)
def test_a_bad_sweep_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, text)


def test_only_keeps_the_order_and_refuses_strangers(tmp_path):
    read = sweep(tmp_path, GOOD)
    assert list(read.only(["micro-fit", "base"]).settings) == ["base", "micro-fit"]
    with pytest.raises(ValueError, match=r"--only: got 'mikro-fit', expected one of .*micro-fit"):
        read.only(["mikro-fit"])


def test_folders_are_plain_names():
    assert folder_of("Best of 5, ../x!") == "best-of-5-..-x"
    assert "/" not in folder_of("a/b")


def test_what_the_ledger_does_not_call_complete_is_incomplete(tmp_path):
    read = Sweep("random", ("a.tar",), {"base": {}, "ours": {}}, seeds=(0, 1))
    assert incomplete(read, tmp_path) == ["base/seed0", "base/seed1", "ours/seed0", "ours/seed1"]
    states = {"base/seed0": "complete", "base/seed1": "partial", "ours/seed0": "complete"}
    told = {"setting": "any", "seed": 0}
    lines = [json.dumps({**told, "folder": name, "state": state}) for name, state in states.items()]
    (tmp_path / INDEX).write_text("\n".join(lines) + "\n")
    assert len(read_index(tmp_path)) == 3
    assert incomplete(read, tmp_path) == ["base/seed1", "ours/seed1"]


def test_the_digest_is_of_what_results_depend_on(tmp_path):
    job = Job(Config(), ("a",), tmp_path)
    digest = job.digest()
    assert digest == Job(Config(), ("b",), tmp_path / "other").digest()
    assert digest != replace(job, config=Config(fit=FitConfig(steps=3))).digest()
    tried = replace(job.config.run, max_deaths=9, instances_at_once=4)
    assert digest == replace(job, config=replace(job.config, run=tried)).digest()


@pytest.mark.parametrize(
    "other",
    [
        Config(method="base"),
        Config(teacher=TeacherConfig(frames=12)),
        Config(reasoner=ReasonerConfig(ladder=(1000.0, 500.0))),
        Config(fit=FitConfig(steps=3, gradient="full", threshold=0)),
        Config(query=QueryConfig(ask="goal")),
    ],
)
def test_models_are_shared_where_only_their_use_differs(other):
    assert models.are_shared(Config(), other)


@pytest.mark.parametrize(
    "other",
    [
        Config(teacher=TeacherConfig(frame_pixels=1024)),
        Config(teacher=TeacherConfig(checkpoint="a/b")),
        Config(reasoner=ReasonerConfig(dtype="float32")),
        Config(reasoner=ReasonerConfig(vae_dtype="bfloat16")),
        Config(reasoner=ReasonerConfig(accepts="text")),
        Config(decoder=DecoderConfig(family="full")),
        Config(lora=LoraConfig(rank=8)),
        Config(fit=FitConfig(checkpointing=True)),
    ],
)
def test_models_are_loaded_anew_where_they_differ(other):
    assert not models.are_shared(Config(), other)


def test_the_shipped_sweeps_are_those_of_the_papers_tables():
    assert [path.stem for path in SHIPPED] == [
        "table1_vbvr",
        "table2_ruler",
        "table3_ablations",
        "table4_models",
    ]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_sweep_opens_with_its_command(path):
    words = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    expected = ["python", "-m", "benchmarks.sweep", path.relative_to(ROOT).as_posix(), "--out"]
    assert words == [*expected, f"runs/{path.stem}"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_fit_takes_every_setting_of_a_shipped_sweep(path, tmp_path):
    read = read_sweep(path)
    found = configs(read, tmp_path)
    assert list(found) == list(yaml.safe_load(path.read_text())["settings"])
    assert (
        len({json.dumps(Job(c, (), tmp_path).digest()) for c in found.values()}) >= len(found) - 2
    )


def test_the_ablations_are_what_they_are_called(tmp_path):
    found = configs(read_sweep(ROOT / "benchmarks" / "sweeps" / "table3_ablations.yaml"), tmp_path)
    for k in (12, 24, 48):
        assert found[f"K={k}"].teacher.frames == k
    for steps in (0, 5, 10, 16, 20, 40):
        fixed = found[f"{steps} updates"].fit
        assert (fixed.steps, fixed.threshold) == (steps, 0)
    assert found["no goal query"].query.ask == "process"
    assert found["no process queries"].query.ask == "goal"
    assert found["generic queries"].query.source == "generic"
    assert (found["last step"].fit.gradient, found["full chain"].fit.gradient) == ("last", "full")
    paper = found["all of it"]
    assert (paper.fit.threshold, paper.fit.steps, paper.teacher.frames) == (0.22, 40, 24)


def test_a_command_ends_with_the_one_who_runs_it(tmp_path):
    """A benchmark that is told to end leaves no sweep behind."""
    child = tmp_path / "child"
    inner = f"import os, time, pathlib; pathlib.Path({str(child)!r}).write_text(str(os.getpid())); "
    inner += "time.sleep(60)"
    outer = "import sys; from benchmarks.sweep import run_command; "
    outer += f"run_command([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", outer])
    deadline = time.monotonic() + 60
    while not (child.exists() and child.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)


def test_a_command_that_ends_by_itself_gives_its_exit_code():
    assert run_command([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_the_first_error_of_a_run_is_told_in_one_line(tmp_path):
    run: Any = SimpleNamespace(job=SimpleNamespace(out=tmp_path), keys=["good", "bad\x1b", "worse"])
    assert first_error(run) is None
    for key, error in (("worse", "OSError: later"), ("bad\x1b", "RuntimeError: no grad\nmore")):
        (tmp_path / folder_name(key)).mkdir()
        row = {"status": "error", "key": key, "error": error}
        (tmp_path / folder_name(key) / "error.json").write_text(json.dumps(row))
    told = first_error(run)
    assert told is not None
    assert told.isprintable()
    assert told.endswith(": RuntimeError: no grad")
