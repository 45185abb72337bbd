"""The command `vlmteach`: its list, its help, what it imports."""

import subprocess
import sys

import pytest

from vlmteach import cli

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
    assert "got 'slove', expected one of fit, plan, solve" in told


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
