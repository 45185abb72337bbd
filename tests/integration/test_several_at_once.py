"""The section of `benchmarks.gpu` that starts processes of its own."""

import torch

from benchmarks.gpu import at_once
from benchmarks.gpu.report import Report

CPU = torch.device("cpu")


def test_several_at_once_are_the_ones_alone(tmp_path, monkeypatch, write_tar, sample):
    monkeypatch.setattr(at_once, "COUNTS", (1, 2))
    tar = write_tar(tmp_path / "data.tar", [sample(n) for n in range(2)])
    report = Report(tmp_path / "out", CPU, minutes=9, words=[])
    words = ["--instances", str(tar), "--config", "random", "--fit.steps", "1"]
    row = at_once.several_at_once(CPU, report, words)
    assert row["same_bits"]
    assert row["one_over_several"] == row["1_at_once_s"] / row["2_at_once_s"] > 0
    assert not list((tmp_path / "out").iterdir())
