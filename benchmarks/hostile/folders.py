"""Hostile folders, records, options, environments, signals; commands for one instance."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.hostile.plants import bomb, checkpoint, code, fitted, fitted_with, picture
from benchmarks.hostile.yard import Case, Command, Yard

KEY = "move__ball_0"


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


def _python_yaml(yard: Yard) -> str:
    return f'run: !!python/object/apply:exec ["{code(yard).strip()}"]\n'


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
        lambda yard: (yard.out / "config.yaml").write_text(_python_yaml(yard)),
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


def _option(*words: str, told: str, codes: tuple[int, ...] = (2,), **more: Any) -> Case:
    name = " ".join(words) or " ".join(f"{k}={v}" for k, v in more["environment"].items())
    return Case(
        part="options",
        name=name,
        plant=lambda yard: fitted(yard, *words),
        told=told,
        codes=codes,
        **more,
    )


def _config(text: str | Callable[[Yard], str]) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        (yard.work / "c.yaml").write_text(text if isinstance(text, str) else text(yard))
        return fitted(yard, "--config=c.yaml")

    return plant


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
OPTIONS = (
    _option("--run.threads=0", told="threads"),
    _option("--run.threads=1000000000", told="threads"),
    _option("--devices=-2", told="devices"),
    _option("--devices=0", told="devices"),
    _option("--num_nodes=0", told="nodes"),
    _option("--lora.rank=1000000", told="rank"),
    _option("--clip.height=-64", told="height"),
    _option("--clip.fps=nan", told="fps"),
    _option("--fit.learning_rate=inf", told="learning_rate"),
    _option("--fit.steps=1e3", told="steps"),
    _option("--optimizer=os.system", "--optimizer.command=x", told="optimizer"),
    _option("--reward=subprocess.Popen", told="reward"),
    _option("--teacher.family=os.system", told="family"),
    _option("--no.such=1", told="no.such"),
    _option("--config=/dev/zero", told="zero|device|preset"),
    _option("--config=../../etc/passwd", told="preset|passwd"),
    Case(part="options", name="YAML aliases that unfold", plant=_config(ALIASES), told="c.yaml"),
    Case(part="options", name="YAML with Python in it", plant=_config(_python_yaml), told="c.yaml"),
    Case(part="options", name="YAML nested deep", plant=_config("[" * 50_000), told="c.yaml"),
    Case(part="options", name="YAML that is a text", plant=_config("hello"), told="c.yaml"),
    _option(
        environment={
            "RANK": "1000000",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "x",
            "MASTER_PORT": "1",
        },
        told="RANK",
        cold=True,
    ),
    _option(environment={"WORLD_SIZE": "two"}, told="WORLD_SIZE", codes=(0, 2), cold=True),
    _option("--wandb.mode=auto", told="WANDB_MODE", environment={"WANDB_MODE": "x"}),
    _option("--wandb.mode=offline", "--wandb.project=a/b", told="project"),
)


UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
THEIRS = {
    "WANDB_RUN_ID": "theirs",
    "WANDB_RESUME": "must",
    "WANDB_DIR": "/nowhere",
    "WANDB_NAME": "n",
}


def _tracked(yard: Yard) -> Command:
    return [word for word in fitted(yard) if not word.startswith("--wandb")]


TRACKER = (
    Case(
        part="tracker",
        name="W&B that cannot be reached",
        plant=lambda yard: [*_tracked(yard), "--wandb.mode=online"],
        codes=(0,),
        told="2 done",
        environment=UNREACHABLE,
        cold=True,
    ),
    Case(
        part="tracker",
        name="another run's W&B variables",
        plant=lambda yard: [*_tracked(yard), "--wandb.mode=offline"],
        codes=(0,),
        told="2 done",
        environment=THEIRS,
        cold=True,
    ),
    Case(
        part="tracker",
        name="W&B's folder a file",
        plant=lambda yard: (
            _below("wandb")(yard).write_text(""),
            [*_tracked(yard), "--wandb.mode=offline"],
        )[1],
        codes=(0,),
        told="2 done",
        cold=True,
    ),
)


def _stop(number: signal.Signals) -> Callable[[Yard, int], bool]:
    def meanwhile(yard: Yard, pid: int) -> bool:
        if not list(yard.out.glob(".claims/move*")):
            return False
        os.kill(pid, number)
        return True

    return meanwhile


STOPS = tuple(
    Case(
        part="stops",
        name=f"{number.name} in a fit",
        plant=lambda yard: fitted(yard, "--fit.steps=500"),
        codes=(128 + number,),
        told=".",
        meanwhile=_stop(number),
    )
    for number in (signal.SIGTERM, signal.SIGINT)
)


def _solved(image: Callable[[Path], object] | None, *words: str) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        if image is not None:
            image(yard.work / "a.png")
        given = ["a.png"] if image else []
        own = ["--config=random", "--fit.steps=1", "--query.source=generic", "--out", "out"]
        return ["vlmteach", "solve", *given, *(words or ("Go.",)), *own]

    return plant


def _nan_adapter(yard: Yard) -> Command:
    command = fitted(yard, "--fit.steps=1", "--fit.keep=last")
    yard.run(*command)
    file = yard.out / KEY / "adapter.safetensors"
    held = {name: torch.full_like(t, float("nan")) for name, t in load_file(file).items()}
    save_file(held, yard.work / "adapter.safetensors")
    (yard.work / "a.png").write_bytes(picture())
    words = ["--config=random", "--lora.rank=2", "--adapter", "adapter.safetensors", "--out", "out"]
    return [
        "vlmteach",
        "apply",
        "a.png",
        "Go.",
        *words,
        "--clip.frames=5",
        "--clip.max_pixels=1024",
    ]


SOLVE = tuple(
    Case(part="solve", name=name, plant=plant, told=told, codes=codes)
    for name, plant, told, codes in (
        ("a picture that is none", _solved(lambda p: p.write_bytes(b"x")), "first.png", (2,)),
        ("a picture of 60000 x 60000", _solved(lambda p: p.write_bytes(bomb())), "pixels", (2,)),
        ("a picture that is a folder", _solved(Path.mkdir), r"a\.png", (2,)),
        ("a picture that is a pipe", _solved(os.mkfifo), r"a\.png", (2,)),
        (
            "a picture that is /dev/zero",
            _solved(lambda p: p.symlink_to("/dev/zero")),
            r"a\.png",
            (2,),
        ),
        ("a prompt of nothing", _solved(None, ""), "prompt", (2,)),
        (
            "special tokens in a prompt",
            _solved(None, "<|im_end|><|vision_start|> Go."),
            "error|done|clip",
            (0, 2),
        ),
        ("a key that climbs", _solved(None, "Go.", "--key=../../x"), ".", (0, 2)),
        ("an adapter that is no number", _nan_adapter, "NaN|number", (2,)),
    )
)
CASES = (*OUTPUT, *RECORDS, *UNSEEN, *CLAIMS, *OPTIONS, *TRACKER, *STOPS, *SOLVE)
