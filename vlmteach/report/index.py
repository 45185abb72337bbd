"""A sweep's index, `runs.jsonl`: its runs and where they lie.

Its fields stand in `benchmarks/sweep.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INDEX = "runs.jsonl"


def read_index(out: Path) -> list[dict[str, Any]]:
    """The runs of a sweep's folder, as its index has them; none without one."""
    path = out / INDEX
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
