"""How a command tells what it could not do."""

import pytest

from vlmteach import exits


def test_an_error_is_one_line_whatever_it_holds(capsys, monkeypatch):
    monkeypatch.delenv("VLMTEACH_DEBUG", raising=False)
    assert exits.refused(ValueError("key 'a\x1b[2J\nb'\u202e: got é"), "(see --help)") == 2
    assert capsys.readouterr().err == "error: key 'a\\x1b[2J b'\\u202e: got é\n(see --help)\n"


def test_who_debugs_gets_the_traceback(monkeypatch):
    monkeypatch.setenv("VLMTEACH_DEBUG", "1")
    with pytest.raises(KeyError):
        exits.refused(KeyError("lost"))
