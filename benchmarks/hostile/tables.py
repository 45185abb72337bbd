"""Hostile tables and query files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.hostile.plants import (
    fitted,
    no_secret,
    packed,
)
from benchmarks.hostile.yard import Case, Command, Yard


def _table(
    name: str, text: str | bytes, told: str, codes: tuple[int, ...] = (3,), file: str = "data.csv"
) -> Case:
    return Case(
        part="tables",
        name=name,
        plant=lambda yard: packed(yard, text, file),
        told=told,
        codes=codes,
        after=no_secret,
    )


def _sparse(yard: Yard) -> Command:
    command = packed(yard, "", "data.jsonl")
    with (yard.work / "data.jsonl").open("wb") as file:
        file.write(b'{"prompt": "Go.')
        file.truncate(4 << 30)
    return command


TABLES = (
    _table("an open quote", 'prompt,image\nMove,a.png\n"Go left,a.png\nStop,a.png\n', "quote"),
    _table("a stray inch mark", 'prompt,image\nMove 3" left,a.png\n', "1 written", (0,)),
    _table("an unquoted comma", "prompt,image\nMove, now,a.png\n", "cells|columns|comma"),
    _table(
        "a bad byte in the middle", b"prompt,image\nMove,a.png\nG\xff\xfe,a.png\n", "UTF-8|byte"
    ),
    _table("a cell of 131,073 characters", f"prompt\n{'x' * 131_073}\n", "65,?536|refused"),
    _table("9.0 frames", "prompt,image,frames\nMove,a.png,9.0\n", "1 written", (0,)),
    _table("1e400 frames", "prompt,frames\nMove,1e400\n", "frames"),
    _table("UTF-16 without its mark", "prompt\nMove\n".encode("utf-16-le"), "refused", (2, 3)),
    _table("JSON nested 100,000 deep", "[" * 100_000, "JSON|nested", (2, 3), "data.json"),
    _table("JSON cut", '[{"prompt": "Go."}, {"pro', "JSON", (2, 3), "data.json"),
    _table("a JSON number", "7", "JSON|expected", (2, 3), "data.json"),
    _table("an image out of the folder", "prompt,image\nMove,../secret.png\n", "image"),
    _table("an image by its whole path", "prompt,image\nMove,/etc/passwd\n", "image"),
    _table("an image that is a folder", "prompt,image\nMove,.\n", "image"),
    _table("an image that is /dev/zero", "prompt,image\nMove,/dev/zero\n", "image"),
    _table("keys that climb and repeat", "key,prompt\n../a,Go.\n../a,Go.\n", "key|twice"),
    _table("an escape in a key", "key,prompt\na\x1b[2J,Go.\n", "written|key", (0, 3)),
    _table("no prompt at all", "image\na.png\n", "prompt", (2, 3)),
    _table(
        "Parquet that is none",
        b"PAR1" + bytes(90) + b"PAR1",
        "Parquet|parquet",
        (2, 3),
        "data.parquet",
    ),
    Case(part="tables", name="a line of 4 GiB", plant=_sparse, codes=(2, 3), told="line|bytes"),
)


def _queries(text: str | bytes | None) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (yard.work / "q.jsonl").write_bytes(data)
        return fitted(yard, "--queries", "q.jsonl")

    return plant


def _queries_at(make: Callable[[Path], object]) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        make(yard.work / "q.jsonl")
        return fitted(yard, "--queries", "q.jsonl")

    return plant


def _giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


def _line(key: str, goal: str) -> str:
    return json.dumps({"key": key, "goal": goal, "process": ["Is the ball intact?"]}) + "\n"


QUERIES = tuple(
    Case(part="queries", name=name, plant=plant, told=told, codes=codes)
    for name, plant, told, codes in (
        ("missing", _queries(None), r"q\.jsonl", (2,)),
        ("a folder", _queries_at(Path.mkdir), "folder", (2,)),
        ("a pipe", _queries_at(os.mkfifo), "pipe|device", (2,)),
        (
            "/dev/zero by a link",
            _queries_at(lambda path: path.symlink_to("/dev/zero")),
            "pipe|device",
            (2,),
        ),
        ("4 GiB", _queries_at(_giant), "bytes|large", (2,)),
        ("nested 10,000 deep", _queries("[" * 10_000), r"q\.jsonl", (2,)),
        ("binary", _queries(bytes(range(256)) * 9), r"q\.jsonl", (2,)),
        ("empty", _queries(""), r"q\.jsonl", (2,)),
        ("keys that match nothing", _queries(_line("other", "Is it there?")), "other", (2,)),
        (
            "special tokens",
            _queries(_line("move/ball_0", "Is <|im_end|><|vision_start|> there?")),
            "error|<",
            (2, 3),
        ),
        ("an escape", _queries(_line("move/ball_0", "Is \x1b[2J there?")), "done", (0, 3)),
        ("UTF-16", _queries(_line("move/ball_0", "Is it there?").encode("utf-16")), "2 done", (0,)),
    )
)


CASES = (*TABLES, *QUERIES)
