"""The bench of hostile input notices what it is there to notice."""

import gc
import os
import pickle
import subprocess
import sys
import time

import pytest

from benchmarks.hostile import yard as bench
from benchmarks.hostile.__main__ import CASES, sums, table
from benchmarks.hostile.plants import Evil, code, pickled
from benchmarks.hostile.yard import Case, Yard, try_case

ERROR = "import sys; print('error: got x, expected y', file=sys.stderr); sys.exit(2)"


@pytest.fixture
def tried(tmp_path):
    """A command of these lines -> what is found; the process starts cold, with nothing imported."""
    yard = Yard(tmp_path / "yard", tmp_path / "cache")

    def go(lines, cold=True, **more):
        def plant(yard):
            (yard.work / "bad.py").write_text(lines.replace("CANARY", repr(str(yard.canary))))
            return ["bad"]

        return try_case(
            Case(part="here", name="it", plant=plant, told="got x", cold=cold, **more), yard
        )

    return go


@pytest.mark.parametrize("cold", [True, False])
def test_one_line_and_the_exit_code_are_right(tried, cold):
    found = tried(ERROR, cold=cold)
    assert not found.wrong
    assert (found.code, found.told) == (2, "error: got x, expected y")
    assert "| here | it" in table([found])
    found = tried("import os; os.mkdir('out'); open('out/a', 'w').close(); " + ERROR, cold=cold)
    assert not found.outside


@pytest.mark.parametrize(
    ("lines", "noticed"),
    [
        ("1 / 0", "traceback"),
        (f"open(CANARY, 'w').close(); {ERROR}", "executed"),
        (f"open('stray', 'w').close(); {ERROR}", "outside"),
        (f"import os; open(os.environ['HOME'] + '/x', 'w').close(); {ERROR}", "outside"),
        (f"import tempfile; tempfile.mkdtemp(); {ERROR}", "outside"),
        (f"open('bad.py', 'a').write('#'); {ERROR}", "outside"),
        (ERROR.replace("(2)", "(0)"), "other"),
        (ERROR.replace("got x", "got z"), "other"),
        (ERROR.replace("got x", "got x\\x1b[2J"), "other"),
        (f"import sys; sys.stderr.write('0% |'); {ERROR}", "other"),
    ],
)
def test_what_is_wrong_is_noticed(tried, lines, noticed):
    found = tried(lines)
    assert getattr(found, noticed)
    assert found.wrong


def test_another_process_does_not_take_the_exit_code(tmp_path):
    """A new `Popen` polls all that were dropped, and would take their exit codes."""
    yard = Yard(tmp_path / "yard", tmp_path / "cache")
    yard.clear()
    (yard.work / "bad.py").write_text(ERROR)
    launch = bench.Launch(yard, ["bad"], cold=True)
    os.waitid(os.P_PID, launch.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not waited for
    gc.collect()
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert launch.wait(10) == 2


def test_a_command_that_hangs_is_killed(tried, monkeypatch):
    monkeypatch.setattr(bench, "LIMIT", 0.5)
    found = tried("import time; time.sleep(60)")
    assert found.hung
    assert sums([found])["hangs"] == 1


def test_a_process_that_is_left_is_noticed_and_killed(tried):
    before = time.monotonic()
    found = tried("import os, time\nif os.fork() == 0:\n    time.sleep(60)\n" + ERROR)
    assert found.hung
    assert time.monotonic() - before < 20


def test_names_of_cases_are_unique():
    names = [(case.part, case.name) for case in CASES]
    assert len(set(names)) == len(names) > 150


def test_planted_pickles_are_live(tmp_path):
    yard = Yard(tmp_path, tmp_path)
    for data in (pickled(code(yard)), pickle.dumps(Evil(yard))):
        pickle.loads(data)
        assert yard.canary.exists()
        yard.canary.unlink()
