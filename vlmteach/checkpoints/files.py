"""The small files of a checkpoint: read with bounds, and refused where they name code to run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AGAIN = "download the checkpoint again"
MOST_BYTES = 256 << 20
"""Of a file that is read whole; the largest tokenizers and indices have a tenth of it."""
MOST_LAYERS = 1000
MOST_SIZE = 1 << 20
"""Of anything else that a config counts; the largest vocabularies have a quarter of it."""

_LFS = b"version https://git-lfs"
_SIZE = re.compile(
    r"(?<!ngram)(?<!chunk)_size$|(^|_)(heads|depth|channels|dim)$|^num_\w*(layers|blocks)$"
    r"|^d_(model|kv|ff)$|^(mrope_section|rope_max_seq_len|image_seq_length)$|^scale_factor_"
)
"""Fields of a config that count something of which there must be at least one."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line with the file and the remedy."""


def refuse_pointer(path: Path) -> None:
    """Refuses what is no file, and the few lines that git leaves where a large file should be.

    Raises:
        CheckpointError: it is one of those, or empty.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: got a broken link, a folder or a device, expected a file; {AGAIN}"
        )
    with path.open("rb") as file:
        head = file.read(len(_LFS))
    if head == _LFS:
        raise CheckpointError(
            f"{path}: got a Git LFS pointer, expected the file that it stands for; run `git lfs "
            "pull` in the folder, or download it with `hf download`"
        )
    if not head:
        raise CheckpointError(f"{path}: got an empty file, expected its content; {AGAIN}")


def read_text(path: Path) -> str | None:
    """The text of a file; None where there is none.

    Raises:
        CheckpointError: it is no text file, or larger than `MOST_BYTES`.
    """
    if not os.path.lexists(path):
        return None
    refuse_pointer(path)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise CheckpointError(
            f"{path}: got {size} bytes, expected at most {MOST_BYTES}; is it the right file?"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: got no UTF-8 text ({error}); {AGAIN}") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file.

    Raises:
        CheckpointError: it is no JSON object, or names code or an attention kernel to run.
    """
    if (text := read_text(path)) is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: got broken JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: got a JSON {type(content).__name__}, expected an object; {AGAIN}"
        )
    for key, value in _fields(content):
        _refuse_code(path, key, value)
    return content


def read_network_config(path: Path) -> dict[str, Any] | None:
    """As `read_json`, for the config of a network whose weights lie beside it.

    Raises:
        CheckpointError: also where the weights are quantised, or a size is no positive number.
    """
    if (content := read_json(path)) is None:
        return None
    for key, value in _fields(content):
        if key in ("quantization_config", "compression_config") and value:
            method = value.get("quant_method") if isinstance(value, dict) else value
            raise CheckpointError(
                f"{path}: got weights quantised by {method}, expected bfloat16, float16 or float32 "
                "ones: a gradient must pass through them; take the checkpoint they were made from"
            )
        for number in value if isinstance(value, list) else [value]:
            if not _SIZE.search(key) or number is None or isinstance(number, dict | list):
                continue
            most = MOST_LAYERS if key.endswith(("layers", "depth", "blocks")) else MOST_SIZE
            if not isinstance(number, int) or not 1 <= number <= most:
                raise CheckpointError(
                    f"{path}: got {key} {str(number)[:40]}, expected a whole number from 1 to "
                    f"{most}; {AGAIN}"
                )
    return content


def _refuse_code(path: Path, key: str, value: Any) -> None:
    if key == "auto_map" and value:
        raise CheckpointError(
            f"{path}: got auto_map, which names Python code that comes with the checkpoint, "
            "expected a checkpoint that transformers' own classes load: such code is never run; "
            "take transformers' own conversion (names that end in -hf), or delete auto_map"
        )
    if key.endswith(("attn_implementation", "experts_implementation")):
        for kernel in value.values() if isinstance(value, dict) else [value]:
            if isinstance(kernel, str) and "/" in kernel:
                raise CheckpointError(
                    f"{path}: got {key} {kernel[:80]!r}, a kernel to be fetched and run, expected "
                    "one of transformers' own; delete the field"
                )


def _fields(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All fields, of the whole and of its parts."""
    waiting: list[Any] = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from ((str(key), value) for key, value in part.items())
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
