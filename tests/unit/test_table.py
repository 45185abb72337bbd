"""The last table of a run."""

from types import SimpleNamespace
from typing import Any

import pytest

from vlmteach.table import cut, errors, table


def row(key, **changed):
    compute = {"seconds": 1234.5}
    return {
        "key": key,
        "status": "done",
        "stop_reason": "non_finite_gradient",
        "steps": 200,
        "first_loss": 13.11634,
        "kept_loss": 0.3,
        "compute": compute,
    } | changed


FAILED = {"key": "bad\x1b[2J", "status": "error", "error": "ValueError: got a, expected b; do c\nx"}
SCORED: Any = SimpleNamespace(
    before=SimpleNamespace(overall=0.5), after=SimpleNamespace(overall=1.0, strict=True)
)


@pytest.mark.parametrize("scored", [False, True])
def test_it_fits_80_columns_and_a_long_key_loses_its_middle(scored):
    keys = ["a" * 60 + "/1", "a" * 60 + "/2", "short"]
    scores: Any = dict.fromkeys(keys, SCORED) if scored else {}
    lines = table([*map(row, keys), FAILED], scores, columns=80).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert [line.split()[0][-2:] for line in lines[1:3]] == ["/1", "/2"]
    assert lines[3].startswith("short  ")
    assert lines[1].split()[1] == "non_...ient"
    assert ("solved" in lines[0]) == scored


def test_a_base_video_of_the_surrogate_is_noted():
    lines = table([row("a", base_video="surrogate")], {"a": SCORED}, columns=80).splitlines()
    assert lines[0].split()[-3:] == ["base*", "score", "solved"]
    assert lines[-1] == "* decoded by the surrogate"


def test_keys_that_have_room_stay_whole():
    key = "test/detour/5795967421726"
    assert key in table([row(key)], {}, columns=80)
    assert key in table([row(key)], {key: SCORED}, columns=120)


def test_errors_are_below_with_their_remedy_and_steer_no_terminal():
    assert errors([row("a"), FAILED]) == "bad\\x1b[2J: ValueError: got a, expected b; do c"
    assert (table([FAILED], {}), errors([row("a")])) == ("", "")


def test_a_cut_keeps_both_ends():
    assert [cut("abcdefghij", n) for n in (10, 9, 5)] == ["abcdefghij", "abc...hij", "a...j"]
