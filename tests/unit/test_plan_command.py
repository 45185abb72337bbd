"""`vlmteach plan` and `vlmteach.fit --plan`: what they print and how they end."""

import pytest
from PIL import Image

from vlmteach import fit
from vlmteach.one_instance import solve_command
from vlmteach.plan import command, rates

SMALL = ["--config", "mini", "--teacher.frames", "3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A measured device without the measuring."""
    made = rates.Device(
        "CPU, measured", 2**34, {"bfloat16": 1e10, "float32": 2e10}, 1e10, True, True
    )
    monkeypatch.setattr(rates, "measure", lambda device: made)


def test_a_tar_s_plan(capsys):
    assert command.main(["--instances", "builtin:demo.tar", *SMALL]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "12 instances of 1 clip size: at least" in said
    assert "fits: 0." in said
    assert "checkpointing: none, as set" in said


def test_fit_with_plan_runs_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--instances", "builtin:demo.tar", "--out", str(out), "--plan", *SMALL]
    assert fit.main(words) == 0
    assert "12 instances of 1 clip size" in capsys.readouterr().out
    assert not out.exists()


def test_solve_with_plan_solves_nothing(tmp_path, capsys):
    picture, out = tmp_path / "a.png", tmp_path / "out"
    Image.new("RGB", (64, 96)).save(picture)
    words = [str(picture), "Move the ball.", "--out", str(out), "--plan", "--config", "random"]
    assert solve_command([*words, "--clip.frames", "5", "--teacher.frames", "3"]) == 0
    said = capsys.readouterr().out
    assert "clip 5 x 64 x 32 on CPU, measured" in said
    assert "1 instance of 1 clip size: at least" in said
    assert not out.exists()


def test_what_does_not_fit_ends_in_another_code(capsys, monkeypatch):
    small = rates.Device("small", 1.0, {"bfloat16": 1.0, "float32": 1.0}, 1.0, True)
    monkeypatch.setattr(rates, "measure", lambda device: small)
    assert command.main(SMALL) == 3
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "b200"], "--device: got 'b200'"),
        (["--reasoner.checkpoint", "a/b"], "checkpoint: got 'a/b'"),
        (["--instances", "no.tar"], "no.tar"),
        (["--method", "pass_at_n"], "method: got 'pass_at_n', expected micro_fit"),
        (["--reasoner.family", "tests.plugins.toy.Toy"], "cannot be planned"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, said, capsys):
    assert command.main([*SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (119, "119 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_spans(seconds, words):
    assert command.span(seconds) == words
