"""What is shown while a command works: on a terminal, and elsewhere."""

import io

import pytest

from vlmteach.shown import FitLine, RunLine
from vlmteach.types import Query, Reading


class Terminal(io.StringIO):
    def isatty(self):
        return True


QUERIES = (Query("a", "goal"), Query("b", "process"), Query("c", "process"))


def readings(count):
    return [Reading(step, 1.0 / (step + 1), (0.25, 0.5, 1.0)) for step in range(count)]


def run_through(stream):
    line = RunLine(3, 1, stream)
    for finished in (2, 2, 3):
        for reading in readings(20):
            line.read("one/\x1b[2Jkey", reading)
        line.advance(finished)
    line.close()
    return stream.getvalue()


def test_a_run_in_a_log_is_a_line_for_each_instance_finished():
    told = run_through(io.StringIO())
    assert "\r" not in told
    assert [line.partition(",")[0] for line in told.splitlines()] == ["2/3 done", "3/3 done"]


def test_a_run_on_a_terminal_is_one_line_on_two_levels():
    told = run_through(Terminal())
    assert told.count("\n") == 1
    assert told.endswith("\n")
    assert "update 0 loss 1.000" in told
    assert "3/3 done, " in told
    assert "\x1b[2J" not in told


@pytest.mark.parametrize("steps", [1, 3, 20, 200])
def test_a_fit_in_a_log_is_few_lines_and_ends_with_its_last_reading(steps):
    stream = io.StringIO()
    line = FitLine(steps, stream)
    for reading in readings(steps + 1):
        line.read(reading)
    line.close()
    told = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert 2 <= len(told) <= 6
    assert told[0] == f"update 0/{steps}  loss 1.000"
    assert told[-1].startswith(f"update {steps}/{steps} ")


def test_a_fit_on_a_terminal_tells_each_role_and_the_time_left():
    stream = Terminal()
    line = FitLine(9, stream)
    line.queries = QUERIES
    for reading in readings(2):
        line.read(reading)
    line.close()
    first, second = stream.getvalue().strip().split("\r")
    assert first.strip() == "update 0/9  loss 1.000  P(yes) goal 0.25 process 0.75"
    assert second.strip().startswith("update 1/9  loss 0.500  P(yes) goal 0.25 process 0.75  0 s ")


def test_a_method_without_updates_has_its_readings_counted():
    stream = io.StringIO()
    line = FitLine(None, stream)
    for reading in readings(3):
        line.read(reading)
    assert [s.partition("  ")[0] for s in stream.getvalue().splitlines()] == [
        "reading 0",
        "reading 1",
        "reading 2",
    ]
