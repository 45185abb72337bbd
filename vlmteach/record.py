"""Records as JSON files, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import uuid
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
"""As Python spells a byte of a file name that is no UTF-8."""


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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file by atomic rename: a reader sees the old file or the new, never a half."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError:  # a full disk, say: half a file helps nobody
        scratch.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 by `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes plain values and dataclasses, nested at will, as indented JSON, atomically.

    Bytes of a file name that are no UTF-8 are escaped, and are the same when they are read again.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, indent=2)
    escaped = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    write_text(path, escaped + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises OSError, or ValueError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: got {error}, expected JSON; put it back, or remove it"
        ) from error


def read_object(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where there is no such file, or no object in it."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
