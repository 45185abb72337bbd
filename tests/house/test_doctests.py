"""Examples in docstrings are run: they say what is so."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ("vlmteach", "benchmarks")
    for path in sorted((ROOT / room).rglob("*.py"))
    if ">>> " in path.read_text()
] + [
    f"vlmteach.callbacks.{path.stem}"  # a link, which rglob does not follow
    for path in sorted((ROOT / "callbacks").glob("*.py"))
    if ">>> " in path.read_text()
]


def test_there_are_examples():
    assert len(WITH_EXAMPLES) >= 4


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_give_what_they_say(module):
    done = doctest.testmod(import_module(module))
    assert done.attempted > 0
    assert done.failed == 0
