"""Records as JSON files, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null, so that any reader can parse the file."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Writes a file by atomic rename: a reader sees the old file or the new, never a half."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def write_json(path: Path, value: Any) -> None:
    """Writes plain values and dataclasses, nested at will, as indented JSON, atomically."""
    write_text(path, json.dumps(_plain(value), ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises OSError or ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))
