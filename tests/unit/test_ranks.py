"""Ranks that die alone, and ranks that are stopped with the first one."""

import contextlib
import os
import signal
import sys
import time

import pytest

from vlmteach.ranks import others, told
from vlmteach.stops import Stopped, check, follow, stoppable

SLEEP = "import time; time.sleep(60)"


def python(code):
    return [sys.executable, "-S", "-c", "import os, signal; " + code]


def asked_after(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_rank_that_dies_takes_nobody_with_it():
    code = "r = os.environ['VLMTEACH_RANK']; n = int(r.split(':')[0]); " + (
        "os.kill(os.getpid(), 9) if n == 1 else os._exit(7 if n == 2 else 0)"
    )
    with others(3, python(code)) as codes:
        time.sleep(0.3)  # the body goes on
    assert codes == {1: -signal.SIGKILL, 2: 7, 3: 0}
    assert told(codes) == "rank 1: SIGKILL, rank 2: exit code 7"
    assert told({1: 0}) == ""


def test_an_error_of_the_first_rank_lets_the_others_finish(tmp_path):
    made = tmp_path / "made"
    code = f"import time; time.sleep(0.3); open({str(made)!r}, 'w').close()"
    with pytest.raises(ValueError, match="sick"), others(1, python(code)) as codes:
        raise ValueError("sick")
    assert codes == {1: 0}
    assert made.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_the_first_rank_stops_the_others(number):
    begun = time.monotonic()
    with pytest.raises(Stopped) as stop, stoppable(), others(2, python(SLEEP)) as codes:
        os.kill(os.getpid(), number)
    assert stop.value.code == 128 + number
    assert codes == {1: -signal.SIGTERM, 2: -signal.SIGTERM}
    assert time.monotonic() - begun < 5


def test_a_stop_while_the_others_are_waited_for_stops_them(monkeypatch):
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped), stoppable(), others(1, python(SLEEP)) as codes:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert codes == {1: -signal.SIGTERM}


def test_a_rank_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("vlmteach.ranks.PATIENCE_SECONDS", 0.2)
    deaf = python("signal.signal(15, signal.SIG_IGN); " + SLEEP)
    with pytest.raises(Stopped), stoppable(), others(1, deaf) as codes:
        asked_after(0.5)
    assert codes == {1: -signal.SIGKILL}


def test_only_the_first_signal_strikes_and_a_swallowed_one_is_raised_again():
    put_in_order = []

    def stopped_again_and_again():
        try:
            asked_after(0)
        finally:
            for number in range(20):
                os.kill(os.getpid(), signal.SIGINT)
                put_in_order.append(number)

    def swallowed():
        with contextlib.suppress(Stopped):
            asked_after(0)
        check()

    with pytest.raises(Stopped) as stop, stoppable():
        stopped_again_and_again()
    assert (stop.value.code, len(put_in_order)) == (143, 20)
    with pytest.raises(Stopped), stoppable():
        swallowed()
    check()  # forgotten with the span
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signals_that_somebody_ignores_are_left_to_him(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with stoppable():
        os.kill(os.getpid(), signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


def test_a_rank_whose_launcher_is_gone_stops():
    def work():
        follow(parent=0, every_seconds=0.05)
        time.sleep(5)

    with pytest.raises(Stopped) as stop, stoppable():
        work()
    assert stop.value.code == 143
