from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.mini.train import __main__ as command
from benchmarks.mini.train import manifest
from benchmarks.mini.train.loop import Stage, train


class Tiny(Stage):
    """A linear layer that is trained for real; a step takes no time."""

    def batch(self, step: int) -> Tensor:
        return torch.full((4, 3), float(step))

    def loss(self, batch: Any, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        return (self.network(batch) - torch.randn(4, 2, generator=draw)).square().mean(), {}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def runs(patch: pytest.MonkeyPatch) -> list[str]:
    """The recipe with tiny networks in the place of its own; the stages that were run."""
    ran: list[str] = []

    def of(name: str) -> Callable[[argparse.Namespace], None]:
        def run(arguments: argparse.Namespace) -> None:
            ran.append(name)
            torch.manual_seed(arguments.seed)
            stage = Tiny(nn.Linear(3, 2), name=name, seed=arguments.seed, steps=2, rate=0.1)
            output = arguments.out / manifest.STAGES[name].outputs[0]
            output.mkdir(parents=True, exist_ok=True)
            (output / "weights").write_text(f"{name}, half-way")
            if arguments.steps and len(ran) == arguments.steps:  # stands for a `kill -9`
                raise KeyboardInterrupt
            if train(stage, arguments.out, minutes=arguments.minutes):
                (output / "weights").write_text(
                    f"{name}: {stage.deliver().state_dict()['weight'].tolist()}"
                )

        return run

    for name, place in command.STAGES.items():
        module, function = place.split(":")
        patch.setattr(import_module(f"benchmarks.mini.train.{module}"), function, of(name))
    return ran


@pytest.fixture
def ran(runs: list[str]) -> list[str]:
    runs.clear()
    return runs


@pytest.fixture(scope="module")
def made(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder with all stages done; not to be changed."""
    out = tmp_path_factory.mktemp("recipe")
    assert run(out) == 0
    assert runs == list(command.STAGES)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "recipe")


def run(out: Path, *words: str, stage: str = "all", seed: int = 1) -> int:
    return command.main([stage, "--seed", str(seed), "--out", str(out), *words])


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def test_every_stage_says_what_it_leaves_and_comes_after_what_it_needs():
    names = list(command.STAGES)
    assert list(manifest.STAGES) == names
    for number, made in enumerate(manifest.STAGES.values()):
        assert made.outputs
        assert set(made.needs) <= set(names[:number])


def test_all_leaves_a_manifest_and_the_same_command_does_nothing(out: Path, ran: list[str]):
    found = told(out)
    assert found["seed"] == 1
    for name, stage in found["stages"].items():
        assert (stage["done"], stage["steps"], stage["torch"]) == (True, 2, torch.__version__), name
        assert stage["seconds"] > 0
        assert f"state/{name}.safetensors" in stage["files"]
    last = {**found["stages"]["autoencoder"]["files"], **found["stages"]["slopes"]["files"]}
    for file, digest in last.items():
        assert hashlib.sha256((out / file).read_bytes()).hexdigest() == digest, file
    built_on = found["stages"]["flaws"]["from"]
    assert built_on["able/weights"] == found["stages"]["reasoner"]["files"]["able/weights"]
    assert run(out) == 0
    assert ran == []
    assert told(out) == found


def test_in_pieces_it_is_the_same(made: Path, tmp_path: Path, ran: list[str]):
    pieces = 0
    while run(tmp_path, "--minutes", "0") == 3:  # a step, then the time is up
        pieces += 1
    assert pieces == len(command.STAGES)
    assert told(tmp_path)["stages"].keys() == told(made)["stages"].keys()
    for name, stage in told(tmp_path)["stages"].items():
        assert stage["files"] == told(made)["stages"][name]["files"], name


def test_a_stage_that_was_cut_off_may_have_begun_to_write(tmp_path: Path, ran: list[str]):
    stages = list(command.STAGES)
    cut = stages.index("hardening") + 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--steps", str(cut))
    assert (tmp_path / "teacher" / "weights").read_text() == "hardening, half-way"
    assert run(tmp_path) == 0
    assert ran == stages[:cut] + stages[cut - 1 :]


def test_stages_side_by_side_keep_what_the_other_noted(tmp_path: Path, ran: list[str]):
    one, other = (manifest.Manifest(tmp_path, 1) for _ in range(2))
    with one.piece("surrogate", 1), other.piece("reasoner", 1):
        pass
    assert told(tmp_path)["stages"].keys() == {"surrogate", "reasoner"}


@pytest.mark.parametrize("file", ["vae/weights", "state/teacher.safetensors", "teacher/weights"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_changed_file_is_told(
    out: Path, ran: list[str], capsys: pytest.CaptureFixture[str], file: str, gone: bool
):
    changed = out / file
    changed.unlink() if gone else changed.write_bytes(changed.read_bytes() + b"!")
    assert run(out) == 2
    assert ran == []
    message = capsys.readouterr().err
    assert str(changed) in message
    assert "as the stage" in message


def test_stages_of_two_makings_are_told(
    out: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
):
    found = told(out)
    (out / "state" / "reasoner.safetensors").unlink()
    del found["stages"]["reasoner"]
    (out / "manifest.json").write_text(json.dumps(found | {"seed": 2}))
    assert run(out, stage="reasoner", seed=2) == 0  # another in its place
    assert run(out, seed=2) == 2
    assert ran == ["reasoner"]
    assert "flaws: got a stage built on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ("[]", "expected a seed and stages"),
     ('{"seed": 1, "stages": {"x": {}}}', "expected a seed and stages"),
     ('{"seed": 2, "stages": {}}', "--seed: got 1, expected 2")],
)  # fmt: skip
def test_another_manifest_is_refused(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str], text: str, message: str
):
    (tmp_path / "manifest.json").write_text(text)
    assert run(tmp_path) == 2
    assert ran == []
    assert message in capsys.readouterr().err
