"""Hostile options, configs, environments, signals; commands for one instance."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.hostile.plants import KEY, bomb, fitted, picture, python_yaml
from benchmarks.hostile.yard import Case, Command, Yard


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
    _option("--optimizer=os.system", "--optimizer.command=x", told="os.system: got"),
    _option("--reward=subprocess.Popen", told="subprocess.Popen: got"),
    _option("--teacher.family=os.system", told="family"),
    _option("--no.such=1", told="no.such"),
    _option("--config=/dev/zero", told="zero|device|preset"),
    _option("--config=../../etc/passwd", told="preset|passwd"),
    Case(part="options", name="YAML aliases that unfold", plant=_config(ALIASES), told="c.yaml"),
    Case(part="options", name="YAML with Python in it", plant=_config(python_yaml), told="c.yaml"),
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
        told="WORLD_SIZE",
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


def _blocked(yard: Yard) -> Command:
    yard.out.mkdir()
    (yard.out / "wandb").write_text("")
    return [*_tracked(yard), "--wandb.mode=offline"]


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
        plant=_blocked,
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
    words = ["--config=random", "--lora.rank=2", "--adapter", "adapter.safetensors"]
    words += ["--out", "out/applied"]
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
CASES = (*OPTIONS, *TRACKER, *STOPS, *SOLVE)
