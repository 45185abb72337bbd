"""What README and the documents tell to type: taken by the programs, whether it is run or not."""

import argparse
import json
import re
import shlex
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from inspect import signature

import pytest

from tests.documents import COMMANDS, PAGES, PYTHON, REASONS, ROOT, Block, blocks, commands
from vlmteach import cli, options
from vlmteach.config import Config
from vlmteach.options import read_config

ALL = [block for page in PAGES for block in blocks(page)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LAUNCHERS = ("torchrun", "srun")
SHELL = {"mkdir", ".", "bash", "git", "sbatch", "docker", "printf"}
"""Programs that are not ours; the files they are given must be there."""


class Accepted(BaseException):
    """A program has read its whole command line."""


@pytest.fixture
def reads_only(monkeypatch):
    """Our commands end where they have understood their words."""
    read, parse_args = options._read, argparse.ArgumentParser.parse_args

    def accept(call):
        def called(*given, **named):
            call(*given, **named)
            raise Accepted

        return called

    monkeypatch.setattr("vlmteach.options._read", accept(read))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept(parse_args))
    return monkeypatch


def module_s_main(name):
    module = import_module(name)
    return import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def check(words, block, patch):
    program, *rest = words
    if program in LAUNCHERS:
        start = rest.index("-m") if "-m" in rest else None
        assert start is not None, words
        rest = rest[start:]
    if program in ("python", "python3", *LAUNCHERS):
        flag, module, *rest = rest
        assert flag == "-m", words
        if not module.startswith(("vlmteach.", "benchmarks.", "examples.")):
            assert find_spec(module), words
            return
        main = module_s_main(module).main
        if module.startswith("examples."):
            assert len(rest) == 1, words
            return
        patch.setattr(sys, "argv", [module, *rest])
        with pytest.raises(Accepted):
            assert not main(*([rest] if signature(main).parameters else [])), words
    elif program == "vlmteach":
        with pytest.raises(Accepted):
            assert not cli.main(rest), words
    elif program == "pip":
        assert rest[:2] == ["install", "-e"]
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", rest[2])
        assert extra, words
        assert extra[1] is None or extra[1] in EXTRAS
    else:
        assert program in SHELL, f"{block.page}: got {program!r}, expected a program that is known"
        if program in ("bash", "sbatch"):
            written = {other.file for other in ALL if other.page == block.page}
            assert rest[0] in written or (ROOT / rest[0]).is_file(), words


def test_there_are_pages_and_blocks():
    assert len(PAGES) >= 15
    assert sum(block.is_run_here for block in ALL) >= 3


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.page)
def test_a_block_s_mark_is_one_that_is_known(block: Block):
    mark = block.mark
    if mark.startswith("not run: "):
        assert mark.removeprefix("not run: ") in REASONS
    elif mark.startswith("run by "):
        assert (ROOT / mark.removeprefix("run by ")).is_file()
    elif block.language in PYTHON and mark:
        assert (ROOT / mark).read_text() == block.code
    else:
        assert not mark or block.file


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.language in COMMANDS], ids=lambda block: block.page
)
def test_a_command_is_one_its_program_takes(block: Block, reads_only):
    for words in commands(re.sub(r"^(?:#.*|exec )", "", block.code, flags=re.MULTILINE)):
        check(words, block, reads_only)


def test_commands_are_refused_that_no_program_takes(reads_only):
    block = Block("x", "sh", "", "")
    for line in ("vlmteach fit --instances a.tar --fit.stepz 3", "vlmteach pack a.csv", "vlmtech"):
        with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception)):
            check(line.split(), block, reads_only)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=lambda b: b.page)
def test_a_preset_in_a_page_is_one_that_is_taken(block, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block.code)
    assert isinstance(read_config(["--config", str(path)]), Config)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "json"], ids=lambda b: b.page)
def test_a_line_of_queries_in_a_page_is_one_that_is_taken(block, tmp_path):
    from vlmteach.queries import load_query_file

    path = tmp_path / "queries.jsonl"
    path.write_text(block.code)
    assert load_query_file(path)
    assert json.loads(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_fields_and_options_that_a_page_names_are_in_the_config(page):
    default = Config()
    sections = [name for name, value in vars(default).items() if hasattr(value, "__dict__")]
    field = re.compile(rf"(?:--)?({'|'.join(sections)})\.(?!json|yaml|mp4)(\w+)")
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text()):
        if named := field.match(span):
            assert hasattr(getattr(default, named[1]), named[2]), span
        if span.startswith("--") and " " in span and field.match(span) and "|" not in span:
            read_config(shlex.split(span))
