"""How fast a device multiplies matrices and moves bytes: measured here, or published elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """What a plan must know of a device."""

    name: str
    memory: float
    """Bytes; on a CPU those that are free now."""
    flops: dict[str, float]
    """dtype of the config -> operations a second in large matrix products."""
    copy: float
    """Bytes read and written a second."""
    is_measured: bool
    shares_host: bool = False
    """Whether encoders that wait on the CPU lie in the same memory."""

    def shared_by(self, processes: int) -> Device:
        """What each of several processes may hold of it; each runs at the whole's rates, since
        only those that leave it idle are worth putting together."""
        if processes == 1:
            return self
        name = f"{self.name}, one of {processes} processes"
        return replace(self, name=name, memory=self.memory / processes)


def _published(name: str, memory: float, half: float, single: float, copy: float) -> Device:
    flops = {"bfloat16": half * 1e12, "float32": single * 1e12}
    return Device(f"{name}, assumed: published peak", memory * 1e9, flops, copy * 1e12, False)


PUBLISHED = {
    "a100": _published("A100 80 GB", 80, 312, 19.5, 2.04),
    "h100": _published("H100 SXM", 80, 989, 67, 3.35),
    "h200": _published("H200", 141, 989, 67, 4.8),
    "rtx4090": _published("RTX 4090", 24, 165, 82.6, 1.01),
}
"""From the makers' data sheets: GB, TFLOP/s of dense bfloat16 and of float32 products, TB/s."""


def device_of(name: str) -> Device:
    """A device by name: `auto` (the GPU that is here, else the CPU), `cpu`, `cuda`, or published.

    Raises:
        ValueError: a name that is neither, or a GPU that is not here.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    on_gpu = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not on_gpu):
        raise ValueError(
            f"--device: got {name!r}, expected auto, cpu, cuda where torch sees a GPU, or one by "
            f"its published peak: {', '.join(PUBLISHED)}"
        )
    return measure(torch.device("cuda" if on_gpu and name != "cpu" else "cpu"))


def measure(device: torch.device) -> Device:
    """Measures a device; well under two seconds."""
    on_gpu = device.type == "cuda"
    side = 4096 if on_gpu else 384
    flops = {}
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.zeros(side, side, device=device, dtype=dtype)
        flops[str(dtype).removeprefix("torch.")] = 2 * side**3 / _seconds(lambda a=a: a @ a, on_gpu)
    x = torch.zeros(2**28 if on_gpu else 2**24, device=device, dtype=torch.uint8)
    y = torch.empty_like(x)
    copy = 2 * x.numel() / _seconds(lambda: y.copy_(x), on_gpu)
    if on_gpu:
        name, memory = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[1]
    else:
        name, memory = f"CPU, {torch.get_num_threads()} threads", _free()
    return Device(f"{name}, measured", memory, flops, copy, True, shares_host=not on_gpu)


def _seconds(run: Callable[[], object], on_gpu: bool) -> float:
    """The best of some runs, for a quarter of a second after one to warm up."""
    best, until = float("inf"), None
    while until is None or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        if until is None:
            until = time.perf_counter() + 0.25
        else:
            best = min(best, time.perf_counter() - start)
    return best


def _free() -> float:
    """Bytes of main memory that a process can still get."""
    told = Path("/proc/meminfo")
    for line in told.read_text().splitlines() if told.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
