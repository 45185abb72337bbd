"""Threads, kernels and device as a run sets them, so that an instance gives the same bits again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vlmteach.config import RunConfig

_memory: Any = torch.utils.deterministic  # a module with a property, which its type hides
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_FIXED = (":4096:8", ":16:8")
"""The workspaces with which cuBLAS adds in one order."""
# torch looks once, at a process's first CUDA product, and that one may not be deterministic: so
# it is there from the import on, where nobody has chosen otherwise.
os.environ.setdefault(_CUBLAS, _FIXED[0])


def settle(run: RunConfig) -> None:
    """Sets the process's threads and kernels.

    Deterministic mode is meant in earnest: where torch may only warn, the backward pass of
    attention goes on adding in any order. An operation that has no deterministic form raises; none
    of the families here uses one.

    Args:
        run: says how many threads, and whether the kernels are deterministic.
    """
    torch.set_num_threads(run.threads)
    torch.use_deterministic_algorithms(run.deterministic)
    # Everything is written before it is read; filling it first is memory traffic for nothing.
    _memory.fill_uninitialized_memory = False
    if run.deterministic:
        torch.backends.cudnn.benchmark = False  # picks a kernel by how fast it was just now
        if os.environ.get(_CUBLAS) not in _FIXED:
            os.environ[_CUBLAS] = _FIXED[0]


@contextmanager
def settled(run: RunConfig) -> Iterator[None]:
    """The same for the span of a `with`; torch is as it was afterwards."""
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = _memory.fill_uninitialized_memory
    tries = torch.backends.cudnn.benchmark
    settle(run)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact, warn_only=only_warns)
        _memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = tries


def device_named(name: str | None) -> torch.device:
    """A device by its name; None: the first GPU if there is one, else the CPU.

    Raises:
        ValueError: no device, or none that is here.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        place = torch.device(name or ("cuda:0" if there else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: got {name!r}, expected one such as 'cuda:0' or 'cpu'") from error
    if place.type == "cuda" and (place.index or 0) >= there:
        raise ValueError(f"device: got {name!r}, expected one of the {there} GPUs that torch sees")
    return place
