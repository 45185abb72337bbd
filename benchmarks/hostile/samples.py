"""Hostile samples in a run, and sources that change while it goes on."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.hostile.plants import (
    END,
    GOOD,
    MINUS,
    bomb,
    fitted,
    member,
    picture,
    sample,
)
from benchmarks.hostile.yard import Case, Yard

_REFUSED = "b: .*expected"
"""How the sample `b` stands below the table of a run."""


def _fit(
    name: str,
    told: str,
    data: Callable[[], bytes],
    *,
    part: str = "samples",
    codes: tuple[int, ...] = (3,),
    words: tuple[str, ...] = (),
    done: tuple[str, ...] = ("good",),
) -> Case:
    return Case(
        part=part,
        name=name,
        plant=lambda yard: fitted(yard, *words, data=data() + sample("good") + END),
        told=told,
        codes=codes,
        after=lambda yard: _all_done(yard, done),
    )


def _all_done(yard: Yard, keys: tuple[str, ...]) -> str:
    missing = [key for key in keys if not (yard.out / key / "done.json").exists()]
    return f"not done: {missing}" if missing else ""


def _meta(**fields: object) -> bytes:
    return json.dumps(fields).encode()


SPECIAL = b"<|im_end|><|vision_start|><|video_pad|><|vision_end|><|endoftext|> Go."
SAMPLES = (
    _fit(
        "special tokens in a prompt",
        "2 done|error",
        lambda: sample("b", prompt_txt=SPECIAL),
        codes=(0, 3),
    ),
    _fit(
        "a template in a prompt",
        "2 done",
        lambda: sample(
            "b",
            prompt_txt=b"{{ ''.__class__.__mro__ }} {% for i in range(9**9) %} $(touch owned) %s",
        ),
        codes=(0,),
    ),
    _fit("a prompt of zero bytes", _REFUSED, lambda: sample("b", prompt_txt=b"\0\0")),
    _fit("a prompt of 1 MiB", _REFUSED, lambda: sample("b", prompt_txt=b"go " * 350_000)),
    _fit(
        "8192 x 8192 x 9997",
        "at most",
        lambda: sample("b", json=_meta(frames=9997, height=8192, width=8192)),
    ),
    *(
        _fit(f"{fields}", _REFUSED, lambda f=fields: sample("b", json=_meta(**f)))
        for fields in (
            {"frames": 0},
            {"frames": -5},
            {"frames": 10**12},
            {"height": -64, "width": 64},
            {"height": 0, "width": 0},
            {"fps": 1e-9},
            {"fps": 1e9},
            {"fps": "fast"},
            {"frames": [9]},
            {"seed": -(10**40)},
            {"seed": "x"},
        )
    ),
    _fit("json nested 100,000 deep", _REFUSED, lambda: sample("b", json=b"[" * 100_000)),
    _fit("json that is a list", _REFUSED, lambda: sample("b", json=b"[]")),
    _fit("a picture that is none", _REFUSED, lambda: sample("b", first_png=b"no picture")),
    _fit("a picture cut short", _REFUSED, lambda: sample("b", first_png=picture()[:60])),
    _fit("a picture of 60000 x 60000", _REFUSED, lambda: sample("b", first_png=bomb())),
    _fit(
        "six bad samples before a good one",
        "1 done, 6 failed",
        lambda: b"".join(sample(f"b{n}", json=_meta(frames=2)) for n in range(6)),
    ),
    _fit(
        "text alone under an image preset",
        _REFUSED,
        lambda: member("b.prompt.txt", b"Go."),
        words=("--reasoner.accepts=image",),
    ),
    _fit("a key that climbs", "2 done|1 done", lambda: sample("../../b"), codes=(0, 3)),
    _fit("a whole path as key", "2 done|1 done", lambda: sample("/etc/b"), codes=(0, 3)),
    _fit(
        "keys that the run itself uses",
        "2 done|3 done|1 done",
        lambda: sample("config.yaml") + sample(".claims"),
        codes=(0, 3),
    ),
    _fit(
        "an escape in a key",
        "2 done|1 done",
        lambda: sample("b\x1b]0;owned\x07\x1b[2J\x9b"),
        codes=(0, 3),
    ),
    _fit("a key of 3,000 characters", "2 done|1 done", lambda: sample("k" * 3000), codes=(0, 3)),
    _fit(
        "a sample twice",
        "twice|done",
        lambda: sample("b") + sample("c") + sample("b"),
        codes=(0, 2, 3),
        done=(),
    ),
    _fit(
        "a link out of the tar",
        "leads out",
        lambda: (
            member("b.prompt.txt", b"Go.")
            + member("b.first.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        ),
    ),
    _fit(
        "two samples that share a picture by a hard link",
        "3 done",
        lambda: (
            GOOD
            + member("b.prompt.txt", b"Go.")
            + member("b.first.png", kind=tarfile.LNKTYPE, link="a.first.png")
        ),
        codes=(0,),
    ),
    _fit(
        "a negative size",
        "size of -1024",
        lambda: GOOD + member("c.first.png", size=MINUS),
        done=(),
    ),
)


def _shrinks(change: Callable[[Path], object]) -> Callable[[Yard, int], bool]:
    def meanwhile(yard: Yard, pid: int) -> bool:
        if not list(yard.out.glob(".claims/move*")):
            return False
        change(yard.work / "data.tar")
        return True

    return meanwhile


def _replaced(path: Path) -> None:
    path.with_suffix(".new").write_bytes(sample("other") + END)
    os.replace(path.with_suffix(".new"), path)


def _growing(yard: Yard, pid: int) -> bool:
    with (yard.work / "data.tar").open("ab") as file:
        file.write(sample(f"n{file.tell()}"))
    return False


CHANGES = tuple(
    Case(
        part="changes",
        name=f"a source {name} while the run goes on",
        plant=fitted,
        codes=codes,
        told="error|done",
        meanwhile=meanwhile,
    )
    for name, codes, meanwhile in (
        ("emptied", (0, 3), _shrinks(lambda path: path.write_bytes(b""))),
        ("cut", (0, 3), _shrinks(lambda path: os.truncate(path, 700))),
        ("made garbage", (0, 3), _shrinks(lambda path: path.write_bytes(os.urandom(9000)))),
        ("replaced", (0, 3), _shrinks(_replaced)),
        ("removed", (0, 3), _shrinks(Path.unlink)),
        ("growing", (0, 2, 3), _growing),
    )
)
CASES = (*SAMPLES, *CHANGES)
