"""Commands that moved refuse with the new spelling."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("benchmarks.floor", "benchmarks.speed.floor"),
        ("benchmarks.oracle", "--reward benchmarks.mini.oracle.PixelError"),
        ("vlmteach.mini.train", "benchmarks.mini.train"),
    ],
)
def test_an_old_command_names_the_new_one(old, new):
    done = subprocess.run(
        [sys.executable, "-m", old, "--config", "paper"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert new in done.stderr
    assert len(done.stderr.splitlines()) == 1
