"""Timing alternatives side by side: interleaved, warmed up, medians with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Case:
    """One alternative of a comparison."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = lambda: None
    """Called before each run, untimed."""


@dataclass(slots=True)
class Timing:
    """What was measured of one case."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    """One entry per round, in wall time on a GPU, in the process's processor time on a CPU (which
    other programs do not stretch); empty when the case does not fit in memory."""
    memory_mib: float | None = None
    """GPU: peak allocated during a run, models included. CPU: what autograd kept for backward
    passes, models left out. None when the case does not fit."""

    @property
    def median(self) -> float:
        """Of the rounds, milliseconds."""
        return statistics.median(self.milliseconds)

    def quartiles(self) -> tuple[float, float]:
        """First and third quartile, in milliseconds."""
        if len(self.milliseconds) < 2:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return first, third

    def ratio(self, other: Timing) -> float:
        """Median over rounds of this case's time over the other's in the same round."""
        pairs = zip(self.milliseconds, other.milliseconds, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def compare(
    cases: Sequence[Case], *, repeats: int, device: torch.device, frozen: Sequence[Tensor] = ()
) -> list[Timing]:
    """Runs every case once to warm up and to see its memory, then all of them in turn.

    The order turns by one from round to round, so that no case always follows the same other. A
    case that runs out of memory is left out of the rounds.

    Args:
        repeats: rounds, at least 1.
        frozen: tensors whose memory is not a case's own (CPU only).
    """
    timings = [Timing(case.name) for case in cases]
    living: list[tuple[Case, Timing]] = []
    for case, timing in zip(cases, timings, strict=True):
        case.before()
        try:
            timing.memory_mib = _memory(case.run, device, frozen) / 2**20
            living.append((case, timing))
        except torch.OutOfMemoryError:
            pass
        if timing.memory_mib is None and device.type == "cuda":
            torch.cuda.empty_cache()
    for number in range(repeats):
        turn = number % max(len(living), 1)
        for case, timing in living[turn:] + living[:turn]:
            case.before()
            timing.milliseconds.append(1000 * _seconds(case.run, device))
    return timings


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    _wait(device)
    start = clock()
    run()
    _wait(device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(run: Callable[[], object], device: torch.device, frozen: Sequence[Tensor]) -> float:
    """Bytes; see `Timing.memory_mib`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    return kept_for_backward(run, frozen)[0]


def kept_for_backward(run: Callable[[], Any], frozen: Sequence[Tensor] = ()) -> tuple[int, Any]:
    """Bytes that autograd keeps of a call, and its result.

    Each block of memory counts once. What a checkpointed block keeps while it is recomputed does
    not count.

    Args:
        run: the forward pass, or more; memory that one pass frees and the next takes may count
            once or twice.
        frozen: tensors whose memory is not the call's own, the model's.
    """
    known = {_place(tensor) for tensor in frozen}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _place(tensor) not in known:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    return sum(kept.values()), result


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # on the meta device, addresses are all 0
