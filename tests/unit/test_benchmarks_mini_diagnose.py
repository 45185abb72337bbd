"""The rules' word along a fit, and what is told of it."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from benchmarks.mini import diagnose
from benchmarks.mini.trace import DELIVERED, SHOWN, TRACE, VIEWS, RuleTrace
from vlmteach.fit import main as fit
from vlmteach.instances.write import write_tar
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.mini.rule_scores import by_rules
from vlmteach.record import read_json, write_json


def view(goal, *parts, strict=False):
    return {"goal": goal, "parts": parts, "overall": goal, "strict": strict}


def reading(step, loss, shown, delivered, norm=None):
    told = {"step": step, "loss": loss, "p_yes": [0.5], SHOWN: shown, "predicted": shown}
    return told | {DELIVERED: delivered} | ({} if norm is None else {"gradient_norm": norm})


def test_the_kept_reading_is_told_of_and_what_was_passed_by():
    trace = [
        reading(0, 2.0, view(0.5, 0.6), view(0.4, 0.7), norm=3.0),
        reading(1, 1.0, view(0.9, 0.8), view(0.95, 0.9, strict=True), norm=2.0),
        reading(2, 0.5, view(1.0, 1.0, strict=True), view(0.8, 0.7, 0.3)),
    ]
    told = diagnose.facts({"stop_reason": "threshold"}, trace)
    assert (told["gradient"], told["loss, first"], told["loss, kept"]) == (3.0, 2.0, 0.5)
    assert (told["goal, first"], told["goal shown"], told["goal delivered"]) == (0.4, 1.0, 0.8)
    assert (told["part shown"], told["part delivered"]) == (1.0, 0.3)
    assert told["strict shown"]
    assert told["strict ever"]
    assert not told["strict delivered"]
    assert told["stops"]
    assert told["stops right"] is False
    assert diagnose.facts({"stop_reason": "steps"}, trace)["stops right"] is None


def test_a_table_has_a_row_per_family_and_one_of_all(tmp_path):
    for family, goal in (("paint", 1.0), ("paint", 0.0), ("reach", 1.0)):
        folder = tmp_path / f"tuning__{family}__{goal}"
        folder.mkdir()
        write_json(folder / DONE, {"stop_reason": "steps"})
        write_json(folder / TRACE, [reading(0, 1.0, view(goal, 1.0), view(goal, 1.0), norm=1.0)])
    lines = diagnose.table(tmp_path).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| reach", "1"],
        ["| paint", "2"],
        ["| all", "3"],
    ]
    assert " 0.667 |" in lines[-1]
    assert lines[-1].endswith("| 0.000 | - |")


def test_a_run_without_a_trace_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got no trace\.json, expected a run with the callback"):
        diagnose.table(tmp_path)


def test_an_instance_that_is_no_task_is_refused():
    problem = SimpleNamespace(key="mine", frames=(0,) * world.FRAMES)
    with pytest.raises(ValueError, match="got the instance 'mine' with 9 frames watched"):
        RuleTrace().on_fit_start(Trainer(), SimpleNamespace(problem=problem))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One task fitted with and without the callback: two updates."""
    folder = tmp_path_factory.mktemp("traced")
    tar = folder / "tasks.tar"
    samples = list(world.export("tuning", 1, 5))
    write_tar(iter(samples), tar)
    words = ["--config", "mini", "--instances", str(tar), "--fit.steps", "2", "--quiet"]
    traced = ["--callbacks", "benchmarks.mini.trace.RuleTrace"]
    for name, more in (("plain", []), ("traced", traced)):
        assert fit([*words, "--out", str(folder / name), *more]) == 0
    key = samples[0].key
    return key, folder / "plain" / folder_name(key), folder / "traced" / folder_name(key)


def test_a_trace_changes_nothing_and_knows_the_clip_that_is_delivered(runs):
    key, plain, traced = runs
    for name in ("adapter.safetensors", "clip.mp4"):
        assert (plain / name).read_bytes() == (traced / name).read_bytes()
    trace = read_json(traced / TRACE)
    assert [reading["step"] for reading in trace] == [0, 1, 2]
    assert all(set(VIEWS) <= reading.keys() for reading in trace)
    assert [("gradient_norm" in reading) for reading in trace] == [True, True, False]
    kept = min(trace, key=lambda reading: reading["loss"])
    _, family, seed = key.split("/")
    scored = by_rules(world.make(family, "tuning", int(seed)), traced / "clip.mp4")
    # The file is compressed, the trace's frames are not.
    assert kept[DELIVERED]["goal"] == pytest.approx(scored["goal"], abs=0.05)


def test_the_numbers_of_a_fit_are_finite_and_of_the_rules(runs):
    trace = read_json(runs[2] / TRACE)
    for each in trace:
        for name in VIEWS:
            values = torch.tensor([each[name]["goal"], *each[name]["parts"]])
            assert ((values >= 0) & (values <= 1)).all()
