"""`benchmarks.gpu` on the CPU, tiny: sections, budget, and what a failure leaves."""

import itertools
import json
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import at_once, sections
from benchmarks.gpu.report import Report, Skipped
from vlmteach import exits, problem
from vlmteach.builtin.paths import builtin_path
from vlmteach.builtin.taehv import FULL_WIDTHS, SMALL_WIDTHS
from vlmteach.options import read_config
from vlmteach.plan import known, rates

SMALL = ["--device", "cpu", "--repeats", "1", "--presets", "wan22-turbo", "--teacher.frames", "3"]
SMALL += ["--clip.frames", "5", "--clip.max_pixels", "2048"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The architectures of the random checkpoints in the place of the real ones."""

    def stated(path):
        content = json.loads((path / "config.json").read_text())
        return {k: v for k, v in content.items() if not k.startswith("_")}

    def architecture(checkpoint):
        if checkpoint.startswith("Qwen/"):
            return stated(builtin_path("random/qwen3_vl"))
        parts = ("transformer", "vae", "text_encoder")
        return {part: stated(builtin_path("random/wan") / part) for part in parts}

    monkeypatch.setattr(known, "architecture", architecture)
    monkeypatch.setitem(FULL_WIDTHS, "taew2_2", SMALL_WIDTHS)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def found(folder):
    return json.loads((folder / "gpu.json").read_text())["sections"]


def test_every_section_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "several_at_once", lambda *_: {"same_bits": True})
    assert gpu.main(["--out", str(tmp_path), *SMALL]) == 0
    seen = found(tmp_path)
    assert [row["status"] for row in seen.values()] == 5 * ["done"]
    assert seen["parity with the CPU"]["gradient_off"] == 0  # the CPU with itself
    assert seen["same bits twice"]["same_bits"]
    row = seen["wan22-turbo"]
    assert row["update_s"] > row["plan_update_s"] > 0
    assert row["peak_over_plan"] == pytest.approx(1, rel=0.1)
    assert "aten::" in (tmp_path / row["profile"]).read_text()
    assert "## wan22-turbo" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit('--fit.steps: got x')", "exit code 1: --fit.steps: got x"),
        ("raise SystemExit(0)", r"adapters: got others 4 at once for none"),
    ],
)
def test_runs_that_left_nothing_are_a_failure(tmp_path, monkeypatch, code, error):
    run = subprocess.run

    def instead(command, **options):
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(at_once.subprocess, "run", instead)
    report = Report(tmp_path, CPU, minutes=9, words=[])
    with pytest.raises((AssertionError, RuntimeError), match=error):
        at_once.several_at_once(CPU, report)


def test_several_at_once_wants_some_time(tmp_path):
    report = Report(tmp_path, CPU, minutes=1, words=[])
    with pytest.raises(Skipped, match=r"of --minutes are left, 120 are wanted"):
        at_once.several_at_once(CPU, report)


def test_what_fails_leaves_the_others(tmp_path, monkeypatch):
    def fails():
        raise AssertionError("gradient_off: got 1, expected below 0.001")

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    found_by = {"bad": fails, "large": too_large, "good": lambda: {"update_s": 1.0}}
    monkeypatch.setattr(sections, "sections", lambda *_: iter(found_by.items()))
    assert gpu.main(["--out", str(tmp_path), *SMALL]) == exits.SOME_FAILED
    seen = found(tmp_path)
    assert seen["bad"]["status"] == "failed"
    assert seen["bad"]["why"] == "AssertionError: gradient_off: got 1, expected below 0.001"
    assert seen["large"]["status"] == "skipped"
    assert seen["large"]["why"] == "out of memory: CUDA out of memory. Tried to allocate 2 GiB"
    assert seen["good"] == {"status": "done", "update_s": 1.0, "took_s": seen["good"]["took_s"]}


def test_a_difference_to_the_cpu_is_a_failure(monkeypatch):
    monkeypatch.setattr(sections, "TOLERANCE", -1.0)
    with pytest.raises(AssertionError, match=r"expected below -1\.0"):
        sections.parity(CPU)


def test_other_bits_are_a_failure(monkeypatch):
    seeds = itertools.count()
    reset = problem.reset
    monkeypatch.setattr(
        problem, "reset", lambda models, **_: reset(models, seed=next(seeds), key="")
    )
    with pytest.raises(AssertionError, match="differ by up to"):
        sections.same_bits(CPU)


def test_what_does_not_fit_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "_free", lambda: 1.0)
    report = Report(tmp_path, CPU, minutes=1, words=[])
    config = read_config(["--config", "wan22-turbo", *SMALL[6:]])
    with pytest.raises(Skipped, match=r"GiB are planned, 0\.0 are there"):
        sections.full_size(config, CPU, 1, report)


def test_no_section_begins_after_the_time(tmp_path):
    report = Report(tmp_path, CPU, minutes=1e-9, words=[])
    report.take("late", lambda: pytest.fail("was run"))
    assert found(tmp_path)["late"]["why"] == "no time is left of --minutes"
    assert not report.failed


def test_a_device_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "--device: got cuda" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
