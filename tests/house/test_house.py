"""Habits of the house, kept by machine."""

import ast
import re
import shlex
import subprocess
import sys
from ast import unparse
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = [
    path
    for room in ("vlmteach", "callbacks", "benchmarks", "tests", "docs", "examples")
    for path in sorted((ROOT / room).rglob("*.py"))
    if not path.is_symlink()
]


@pytest.mark.parametrize("module", ["vlmteach.fit", "vlmteach.instances"])
def test_help_imports_nothing_heavy(module):
    probe = (
        "import runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'lightning', 'diffusers', 'transformers', 'peft', 'wandb', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "usage" in done.stdout


def test_imports_run_one_way():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_files_hold_one_idea():
    long = {str(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_no_room_is_called_utils():
    words = {"utils", "misc", "helper", "helpers", "manager"}
    parts = {p: p.relative_to(ROOT).with_suffix("").parts for p in SOURCES}
    assert not [path for path, names in parts.items() if words & {*names}]


def test_nothing_unpickles_or_runs_a_shell():
    calls = re.compile(
        r"\btorch\.load\(|\b(import|from) pickle\b|\bpickle\.|shell=True|os\.system\("
        r"|trust_remote_code=True|\beval\("
    )
    guilty = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        if path != Path(__file__) and "tests" not in path.parts
        for line in path.read_text().splitlines()
        if calls.search(line.replace(".eval(", ""))
    ]
    # The one reader of files that a user names to `convert`: it makes nothing but tensors.
    safely = 'held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)'
    assert guilty == [f"original_weights.py: {safely}"]


def test_no_checkpoint_s_code_is_ever_run():
    """transformers asks whether to run it, and takes a piped yes, unless it is told not to."""
    found = 0
    for path in SOURCES:
        if "tests" in path.parts:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            asked = re.match(
                r"Auto(Config|Tokenizer|Processor|Model\w*)\.from_pret", unparse(call.func)
            )
            if asked:
                found += 1
                told = {word.arg: unparse(word.value) for word in call.keywords}
                assert told.get("trust_remote_code") == "False" or None in told, path
    assert found >= 5


def commands_in(text: str) -> list[list[str]]:
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if "vlmteach.fit" in line]


def test_every_fit_command_of_the_readme_is_one_the_program_takes():
    from vlmteach import fit
    from vlmteach.options import parse

    found = commands_in((ROOT / "README.md").read_text())
    assert len(found) >= 3
    for words in found:
        arguments = words[words.index("vlmteach.fit") + 1 :]
        parse(fit.parser(), arguments)


def test_shipped_files_name_no_machine():
    text = "".join(p.read_text() for p in (ROOT / "vlmteach" / "mini" / "weights").rglob("*.json"))
    assert "_name_or_path" not in text
