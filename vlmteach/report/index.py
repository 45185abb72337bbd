"""A sweep's index, `runs.jsonl`: its runs and where they lie.

Its fields stand in `benchmarks/sweep.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INDEX = "runs.jsonl"
_READ = {"setting": str, "seed": int, "folder": str}
"""What is read of a row without another look."""


def read_index(out: Path) -> list[dict[str, Any]]:
    """The runs of a sweep's folder, as its index has them; none without one.

    Raises:
        ValueError: a line that no sweep has written.
    """
    path = out / INDEX
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # texts: U+2028
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        fields = row if isinstance(row, dict) else {}
        if not all(isinstance(fields.get(name), kind) for name, kind in _READ.items()):
            raise ValueError(
                f"{path}: line {number}: got {line[:80]!r}, expected a run of a sweep with its "
                "setting, seed and folder; remove the file, and give the sweep's command again"
            )
        rows.append(fields)
    return rows
