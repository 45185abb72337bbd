"""The shipped tasks one at a time and several at once on one device: same bits, other times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.report import Report, Skipped
from vlmteach.adapter_notes import ADAPTER
from vlmteach.rows import digest_of

COUNTS = (1, 4)
"""Processes on the device."""
_LEAST = 120
"""Seconds that must be left: loading is most of it on a fast device."""
TASKS = ("--instances", "builtin:demo.tar", "--config", "mini")


def several_at_once(
    device: torch.device, report: Report, words: Sequence[str] = TASKS
) -> dict[str, Any]:
    """Runs of `vlmteach.fit` with each of `COUNTS`, loading included.

    Args:
        device: of the runs; of several GPUs the first.
        report: whose time they take.
        words: of the command, beside those that this adds.

    Raises:
        AssertionError: adapters that differ.
        RuntimeError: a run that failed.
        Skipped: too little time is left.
    """
    if report.seconds_left < _LEAST:
        raise Skipped(f"{report.seconds_left:.0f} s of --minutes are left, {_LEAST} are wanted")
    found: dict[str, Any] = {}
    adapters: dict[int, dict[str, str]] = {}
    for count in COUNTS:
        with TemporaryDirectory(prefix="at-once-", dir=report.folder) as folder:
            start = time.perf_counter()
            _fit([*words, f"--run.instances_at_once={count}"], Path(folder), device, report)
            found[f"{count}_at_once_s"] = time.perf_counter() - start
            files = Path(folder).glob(f"*/{ADAPTER}")
            adapters[count] = {file.parent.name: digest_of(file) for file in files}
    one, several = (adapters[count] for count in COUNTS)
    if not one or one != several:
        apart = sorted({key for key, _ in one.items() ^ several.items()})
        raise AssertionError(f"adapters: got others {COUNTS[1]} at once for {apart or 'none'}")
    found["same_bits"] = True
    found["one_over_several"] = found[f"{COUNTS[0]}_at_once_s"] / found[f"{COUNTS[1]}_at_once_s"]
    return found


def _fit(words: Sequence[str], folder: Path, device: torch.device, report: Report) -> None:
    place = "gpu" if device.type == "cuda" else "cpu"
    command = [sys.executable, "-m", "vlmteach.fit", *words, "--out", str(folder)]
    command += ["--accelerator", place, "--devices", "1", "--wandb.mode", "disabled", "--quiet"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(report.seconds_left, 1)
        )
    except subprocess.TimeoutExpired:
        raise Skipped("the time of --minutes was over before it was done") from None
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise RuntimeError(f"exit code {done.returncode}: {told[-1] if told else 'nothing told'}")
