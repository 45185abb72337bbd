"""One generator per (run seed, instance, role); the global seed is never touched.

The same instance therefore draws the same numbers alone, in any order, on any rank. All draws are
made on the CPU and moved, so that they do not depend on the device either.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(run_seed: int, key: str, role: str) -> int:
    """A 63-bit seed for one role of one instance: sha256 of (run seed, key, role).

    Args:
        run_seed: the run's seed, or the instance's own where the sample states one.
        key: the instance's key.
        role: what the numbers are for, e.g. `"noise"`, `"renoise/2"`, `"lora"`.
    """
    text = f"{run_seed}\x00{key}\x00{role}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(run_seed: int, key: str, role: str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(run_seed, key, role))
