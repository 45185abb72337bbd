"""The command `vlmteach` and its commands for one instance."""

import os
import signal
import subprocess
import sys

import pytest

import vlmteach
from vlmteach import cli, one_instance

HEAVY = "{'torch', 'lightning', 'diffusers', 'transformers', 'peft', 'wandb', 'numpy'}"


def test_it_lists_its_commands(capsys):
    for words in ([], ["--help"]):
        assert cli.main(words) == 0
        told = capsys.readouterr().out
        assert all(f"\n  {name} " in told for name in cli.COMMANDS)


def test_an_unknown_command_is_one_line(capsys):
    assert cli.main(["slove"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "got 'slove', expected one of fit, solve" in told


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_imports_nothing_heavy_for_it(name):
    probe = (
        "import sys\nfrom vlmteach.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        f"print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "usage" in done.stdout


def test_as_a_module(tmp_path):
    (tmp_path / "a.prompt.txt").write_text("go")
    words = [sys.executable, "-m", "vlmteach", "list", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a\t2\ttext")


def test_the_users_own_classes_are_found_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    monkeypatch.setitem(cli.COMMANDS, "list", ("", lambda words: 0))
    assert [cli.main(["list"]), cli.main(["list"])] == [0, 0]
    assert sys.path == ["elsewhere", str(tmp_path)]


@pytest.mark.parametrize(
    ("words", "image", "prompt"),
    [(["go"], None, "go"), (["a.png", "go"], "a.png", "go")],
)
def test_an_image_is_optional(words, image, prompt):
    own = one_instance.solve_parser().parse_args([*words, "--out", "x"])
    assert (own.image, own.prompt) == (image, prompt)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.png", "go", "--out", "x"], "got 'none.png', expected a file"),
        (["go", "--out", "x", "--fit.stps", "3"], "perhaps 'fit.steps'"),
    ],
)
def test_what_cannot_start_ends_with_2(words, told, capsys):
    assert cli.main(["solve", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "vlmteach solve --help" in error


def test_a_signal_ends_a_solve_with_its_code(monkeypatch, capsys, tmp_path):
    def solve(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.setattr(vlmteach, "load", lambda config: None)
    monkeypatch.setattr(vlmteach, "solve", solve)
    with pytest.raises(SystemExit) as stop:
        one_instance.solve_command(["Move.", "--out", str(tmp_path / "out")])
    assert stop.value.code == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
