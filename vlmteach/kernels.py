"""Threads and kernels of a process: the same for everybody whose results are compared."""

from __future__ import annotations

import os

import torch

from vlmteach.config import RunConfig


def settle(run: RunConfig) -> None:
    """Sets torch's threads and whether its kernels are deterministic; call it before CUDA starts.

    Args:
        run: `threads` and `deterministic` are read.
    """
    torch.set_num_threads(run.threads)
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
