"""Hostile output folders, records of earlier runs, and claims; inputs changed in between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.hostile.plants import KEY, checkpoint, fitted, fitted_with, python_yaml
from benchmarks.hostile.yard import Case, Command, Yard


def _at_out(
    name: str, make: Callable[[Yard], object], told: str, codes: tuple[int, ...] = (2,)
) -> Case:
    def plant(yard: Yard) -> Command:
        command = fitted(yard)
        make(yard)
        return command

    return Case(part="output", name=name, plant=plant, told=told, codes=codes)


def _below(name: str) -> Callable[[Yard], Path]:
    def make(yard: Yard) -> Path:
        path = yard.out / name
        path.parent.mkdir(parents=True)
        return path

    return make


def _out(name: str, to: str, told: str) -> Case:
    return Case(part="output", name=name, plant=lambda yard: fitted(yard, f"--out={to}"), told=told)


OUTPUT = (
    _at_out("a file", lambda yard: yard.out.write_text(""), "out"),
    _at_out("a broken link", lambda yard: yard.out.symlink_to("/nowhere/at/all"), "out"),
    _at_out("its claims a file", lambda yard: _below(".claims")(yard).write_text(""), "claims"),
    _at_out(
        "an instance's folder a file", lambda yard: _below(KEY)(yard).write_text(""), KEY, (2, 3)
    ),
    _at_out(
        "config.yaml a folder", lambda yard: _below("config.yaml")(yard).mkdir(), "config.yaml"
    ),
    _at_out(
        "config.yaml a pipe",
        lambda yard: os.mkfifo(_below("config.yaml")(yard)),
        "config.yaml|done",
        (0, 2),
    ),
    _out("below a file", "data.tar/out", "data.tar"),
    _out("where nothing can be made (/proc)", "/proc/hostile", "/proc/hostile"),
    _out("/dev/full", "/dev/full", "/dev/full"),
    _out("a name of 5,000 characters", "o" * 5000, "long"),
)


def _after_a_run(
    name: str,
    change: Callable[[Yard], object],
    told: str,
    codes: tuple[int, ...] = (2,),
    words: tuple[str, ...] = (),
    part: str = "records",
) -> Case:
    def plant(yard: Yard) -> Command:
        command = fitted(yard)
        yard.run(*command)
        change(yard)
        return [*command, *words]

    return Case(part=part, name=name, plant=plant, told=told, codes=codes)


def _write(name: str, data: bytes) -> Callable[[Yard], object]:
    return lambda yard: (yard.out / name).write_bytes(data)


BINARY, DEEP = bytes(range(256)) * 4, b"[" * 100_000
RECORDS = (
    *(
        _after_a_run(f"config.yaml {name}", _write("config.yaml", data), "config.yaml")
        for name, data in (
            ("empty", b""),
            ("binary", BINARY),
            ("a list", b"[1]"),
            ("nested 100,000 deep", DEEP),
        )
    ),
    _after_a_run(
        "config.yaml with Python in it",
        lambda yard: (yard.out / "config.yaml").write_text(python_yaml(yard)),
        "config.yaml",
    ),
    _after_a_run(".inputs.json a list", _write(".inputs.json", b"[]"), "inputs.json"),
    *(
        _after_a_run(f"{file} {name}", _write(f"{KEY}/{file}", data), "2 done", (0,))
        for file in ("done.json", "fit.json")
        for name, data in (
            ("empty", b""),
            ("binary", BINARY),
            ("a list", b"[]"),
            ("nested 100,000 deep", DEEP),
        )
    ),
    _after_a_run(
        "done.json of another instance",
        lambda yard: (yard.out / KEY / "done.json").write_bytes(
            (yard.out / "move__ball_1/done.json").read_bytes()
        ),
        "2 done",
        (0,),
    ),
    _after_a_run(
        "a clip removed", lambda yard: (yard.out / KEY / "clip.mp4").unlink(), "2 done", (0,)
    ),
    _after_a_run(
        "results.jsonl a folder",
        lambda yard: ((yard.out / "results.jsonl").unlink(), (yard.out / "results.jsonl").mkdir()),
        "results.jsonl",
    ),
    _after_a_run(
        "other settings",
        lambda yard: None,
        "fit.steps",
        words=("--fit.steps=2",),
        part="unseen changes",
    ),
)


def _with_changed(part: str, spoil: Callable[[Path], object]) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        made = checkpoint(yard, part)
        command = fitted_with(yard, part)
        yard.run(*command)
        spoil(made)
        return command

    return plant


def _nudge(path: Path) -> None:
    """Another weight; size and time as they were."""
    file = path / "model.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
    stat = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _other_queries(yard: Yard) -> Command:
    for name, goal in (("q.jsonl", "Is it there?"), ("r.jsonl", "Is it gone?")):
        rows = (
            {"key": f"move/ball_{n}", "goal": goal, "process": ["Is it whole?"]} for n in (0, 1)
        )
        (yard.work / name).write_text("\n".join(map(json.dumps, rows)))
    yard.run(*fitted(yard, "--queries", "q.jsonl"))
    return fitted(yard, "--queries", "r.jsonl")


UNSEEN = (
    Case(
        part="unseen changes",
        name="the teacher's weights in place",
        plant=_with_changed("teacher", _nudge),
        told="teacher.checkpoint with another content",
    ),
    Case(
        part="unseen changes",
        name="the surrogate in place",
        plant=_with_changed("decoder", _nudge),
        told="decoder.checkpoint with another content",
    ),
    Case(
        part="unseen changes",
        name="other queries",
        plant=_other_queries,
        told="queries with another content",
    ),
)


def _claims(data: bytes, ahead: float | None = None) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        (yard.out / ".claims").mkdir(parents=True)
        for name in (f"{KEY}.1", "move__ball_1.1"):
            claim = yard.out / ".claims" / name
            claim.write_bytes(data)
            if ahead is not None:
                os.utime(claim, (4e9, 4e9))
        return fitted(yard)

    return plant


DEAD = json.dumps({"host": "x", "pid": 1}).encode()
CLAIMS = tuple(
    Case(part="claims", name=name, plant=_claims(data, ahead), codes=(0,), told="2 done")
    for name, data, ahead in (
        ("empty", b"", None),
        ("garbage", BINARY, None),
        ("a list", b"[]", None),
        ("nested deep", DEEP, None),
        ("empty, of the year 2096", b"", 1.0),
        ("half an owner", DEAD[:9], None),
    )
)


CASES = (*OUTPUT, *RECORDS, *UNSEEN, *CLAIMS)
