"""Queries through somebody's editor: a script that stands for one."""

import io
import shlex
import sys

import pytest

from vlmteach.editing import edited, editor
from vlmteach.types import Query, QuerySet

BEFORE = QuerySet(
    (Query("Is the ball in the square?", "goal"), Query("Does it stay whole?", "process")),
    source="teacher",
    replies=2,
    refusals=("asked twice",),
)
GOOD = "goal: Is the ball red?\nprocess: Does the ball stay whole?\n"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Sets $EDITOR to what writes one text after the other; None leaves the file as it is."""

    def of(*texts, code=0):
        for number, text in enumerate(texts):
            if text is not None:
                (tmp_path / f"text{number}").write_text(text)
        lines = [
            "import pathlib, sys",
            f"here = pathlib.Path({str(tmp_path)!r})",
            "count = here / 'count'",
            "n = int(count.read_text()) if count.exists() else 0",
            "count.write_text(str(n + 1))",
            "pathlib.Path(here, f'seen{n}').write_text(pathlib.Path(sys.argv[-1]).read_text())",
            "new = here / f'text{n}'",
            "if new.exists(): pathlib.Path(sys.argv[-1]).write_text(new.read_text())",
            f"sys.exit({code})",
        ]
        path = tmp_path / "an editor.py"
        path.write_text("\n".join(lines))
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(path), "$(touch shell)"]))
        return tmp_path

    return of


def test_what_is_edited_is_asked(script, monkeypatch):
    place = script("# a note\n" + GOOD)
    monkeypatch.chdir(place)
    made = edited(BEFORE, editor())
    assert [(q.role, q.text) for q in made.queries] == [
        ("goal", "Is the ball red?"),
        ("process", "Does the ball stay whole?"),
    ]
    assert (made.source, made.replies, made.refusals) == ("edited", 2, ("asked twice",))
    assert "goal: Is the ball in the square?\nprocess: Does it" in (place / "seen0").read_text()
    assert not (place / "shell").exists()


def test_what_is_left_alone_stays_as_it_is(script):
    script(None)
    assert edited(BEFORE, editor()) is BEFORE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "got 0 goal queries"),
        ("goal: Is it there?\n", '"process": got 0 questions'),
        (GOOD + "And more\n", "line 3: got 'And more', expected goal: or process:"),
        (GOOD.replace("Does", "Doesn't"), "phrased positively|auxiliary"),
        (GOOD + "process: Does the ball stay whole?\n", "asked twice"),
        (GOOD + "process: Is a there?\nprocess: Is b there?\nprocess: Is c there?\n", "1 to 3"),
    ],
)
def test_a_fault_is_refused_where_nobody_can_be_asked(script, text, told, monkeypatch):
    script(text)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(ValueError, match=told):
        edited(BEFORE, editor())


def test_on_a_terminal_the_editor_opens_again(script, monkeypatch, capsys):
    place = script("goal: It is there.\n", GOOD)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def fileno(self):
            return 0

    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert edited(BEFORE, editor()).queries[0].text == "Is the ball red?"
    assert "process" in capsys.readouterr().err
    assert (place / "seen1").read_text() == "goal: It is there.\n"


def test_an_editor_that_fails_is_told(script):
    script(None, code=3)
    with pytest.raises(ValueError, match="ended with 3"):
        edited(BEFORE, editor())


@pytest.mark.parametrize("told", ["", "no-such-editor -w", "'"])
def test_no_editor_is_told(monkeypatch, told):
    monkeypatch.setenv("EDITOR", told)
    with pytest.raises(ValueError, match="EDITOR: got"):
        editor()
