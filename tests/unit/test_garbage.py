"""Python's garbage collector for the span of a command."""

import gc

import pytest

from vlmteach import cli
from vlmteach.garbage import few_collections
from vlmteach.launch import commanded


@pytest.fixture(autouse=True)
def threshold():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_rare_in_the_span_and_as_before_after_it():
    with few_collections():
        assert gc.get_threshold()[0] >= 50_000
    assert gc.get_threshold() == (700, 10, 10)


def test_what_others_have_set_higher_or_switched_off_stays():
    for first in (0, 1_000_000):
        gc.set_threshold(first, 5, 5)
        with few_collections():
            assert gc.get_threshold() == (first, 5, 5)


def test_commands_have_it(monkeypatch):
    seen = []
    with commanded():
        seen.append(gc.get_threshold()[0])
    note = ("", lambda words: seen.append(gc.get_threshold()[0]) or 0)
    monkeypatch.setitem(cli.COMMANDS, "list", note)
    assert cli.main(["list"]) == 0
    assert min(seen) >= 50_000
