"""`vlmteach solve`: what it takes and refuses, what it tells, and how it ends when asked to."""

import json
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from vlmteach import cli, entrance
from vlmteach.builtin.paths import DEMO
from vlmteach.instances import decode, read_samples
from vlmteach.one_instance import doubt
from vlmteach.options import read_config
from vlmteach.record import read_json
from vlmteach.shown import FitLine

OPTIONS = [
    *("--config", "random", "--clip.frames", "5", "--clip.max_pixels", "1024"),
    *("--teacher.frames", "4", "--lora.rank", "2", "--fit.steps", "4", "--fit.threshold", "0"),
    *("--query.source", "generic"),
]


@pytest.fixture(scope="module")
def models():
    return entrance.load(read_config(OPTIONS), device="cpu")


@pytest.fixture
def place(tmp_path, monkeypatch, models):
    """A folder with two pictures, one text missing; models are loaded once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (32, 32), colour).save(f"pictures/{name}.png")
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"Move {name}.")
    monkeypatch.setattr(entrance, "load", lambda config: models)
    return tmp_path


def solve(*words):
    return cli.main(["solve", *words, "--out", "out", *OPTIONS])


def test_one_picture_tells_queries_cost_and_loss_and_then_where_the_clip_is(place, capsys):
    given = ("--goal", "Is it in?", "--process", "Is it whole?")
    assert solve("pictures/a.png", "Move\x1b[2J it.", *given) == 0
    told = capsys.readouterr()
    assert told.out == "out/instance/clip.mp4\nout/report.html\n"
    lines = told.err.splitlines()
    assert lines[:4] == [
        "instance: Move\\x1b[2J it.",
        "queries (sample):",
        "  goal: Is it in?",
        "  process: Is it whole?",
    ]
    assert lines[4].startswith("at most 4 updates")
    assert "P(yes) goal " in lines[5]
    assert lines[-1].startswith("loss ")
    assert "\r" not in told.err
    assert (place / "out/config.yaml").exists()
    (row,) = map(json.loads, (place / "out/results.jsonl").read_text().splitlines())
    assert (row["key"], row["steps"]) == ("instance", 4)


def test_a_folder_goes_on_after_one_that_fails_and_later_does_what_is_missing(
    place, capsys, monkeypatch
):
    monkeypatch.setenv("EDITOR", "false")
    assert solve("pictures", "--quiet", "--edit-queries") == 3
    assert capsys.readouterr().err.count("false ended with 1") == 2
    (place / "pictures/b.png").rename("pictures/c.png")
    (place / "pictures/b.txt").rename("pictures/c.txt")
    assert solve("pictures", "--quiet") == 0
    (place / "pictures/c.png").rename("pictures/b.png")
    (place / "pictures/c.txt").rename("pictures/b.txt")
    before = (place / "out/a/done.json").stat().st_mtime_ns
    assert solve("pictures", "--quiet") == 0
    told = capsys.readouterr()
    shown = [path.split("/")[1] for path in told.out.split()]
    assert shown == ["a", "c", "report.html", "a", "b", "report.html"]
    assert told.err == ""
    assert (place / "out/a/done.json").stat().st_mtime_ns == before
    rows = (place / "out/results.jsonl").read_text().splitlines()
    assert [json.loads(row)["key"] for row in rows] == ["a", "b", "c"]
    (place / "pictures/a.txt").write_text("Something else.")
    assert solve("pictures") == 2
    assert "the result of another prompt" in capsys.readouterr().err


def test_edited_queries_are_the_ones_fitted_to(place, monkeypatch):
    text = "goal: Is the ball in?\\nprocess: Is the ball whole?\\n"
    script = f"import sys; open(sys.argv[1], 'w').write('{text}')"
    (place / "editor.py").write_text(script)
    monkeypatch.setenv("EDITOR", f"{sys.executable} editor.py")
    assert solve("Move it.", "--edit-queries", "--quiet") == 0
    kept = read_json(place / "out/instance/queries.json")
    assert (kept["source"], kept["goal"]) == ("edited", "Is the ball in?")
    assert read_json(place / "out/instance/fit.json")["queries"]["source"] == "edited"


def send(monkeypatch, *numbers):
    """Signals, one at each reading from the second on."""
    left = list(numbers)
    shown = FitLine.read

    def read(self, reading):
        shown(self, reading)
        if reading.step and left:
            os.kill(os.getpid(), left.pop(0))

    monkeypatch.setattr(FitLine, "read", read)


def test_ctrl_c_in_the_fit_delivers_the_clip_of_the_best_so_far(place, monkeypatch, capfd):
    send(monkeypatch, signal.SIGINT)
    assert solve("pictures") == 130
    told = capfd.readouterr()
    assert told.out == "out/a/clip.mp4\nout/report.html\n"  # the next is not begun
    assert "interrupted: the clip of the best so far comes" in told.err
    record = read_json(place / "out/a/fit.json")
    assert (record["stop_reason"], record["steps"], len(record["readings"])) == (
        "interrupted",
        2,
        3,
    )
    losses = [reading["loss"] for reading in record["readings"]]
    assert record["kept_loss"] == min(losses)
    assert read_json(place / "out/a/done.json")["stop_reason"] == "interrupted"


@pytest.mark.parametrize(
    ("numbers", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_a_second_ctrl_c_and_sigterm_end_at_once(place, monkeypatch, capfd, numbers, code):
    def twice(*_):
        for number in numbers:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(FitLine, "read", twice)
    with pytest.raises(SystemExit) as stop:
        solve("Move it.")
    assert stop.value.code == code
    assert f"stopped by {numbers[0].name}" in capfd.readouterr().err
    assert not (place / "out/instance/clip.mp4").exists()
    assert not (place / "out/instance/done.json").exists()


def test_ctrl_c_before_the_fit_ends_at_once(place, monkeypatch, capfd):
    monkeypatch.setattr(entrance, "load", lambda config: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        solve("Move it.")
    assert stop.value.code == 130
    assert "stopped by SIGINT" in capfd.readouterr().err


def test_the_miniature_takes_its_worlds_and_nothing_else():
    mini = read_config([])
    worlds = [decode(raw) for raw in read_samples([str(DEMO)])]
    assert [doubt(mini, world) for world in worlds] == [None] * 12
    for first in (None, Image.new("RGB", (640, 480)), Image.new("RGB", (32, 32), "red")):
        other = type(worlds[0])(key="a", prompt="go", first_frame=first, digest="")
        assert "symbolic pictures of 32 x 32" in (doubt(mini, other) or "")
        assert doubt(read_config(["--config", "random"]), other) is None


COLD = """
import os, sys
from vlmteach.cli import main
import contextlib, io
def told(*words, **env):
    os.environ.update(env)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(list(words)) == 2, words
    for name in env: del os.environ[name]
    print(said.getvalue().splitlines()[0])
open("file", "w").close()
demo = ("fit", "--instances", "builtin:demo.tar", "--out")
told(*demo, "new", WORLD_SIZE="two")
told(*demo, "new", TORCHELASTIC_RUN_ID="a", RANK="one")
told(*demo, "new", "--devices", "0")
told("fit", "--instances", "none.tar", "--out", "new")
told(*demo, "file")
told(*demo, "file/below")
told(*demo, "new", "--queries", "none.jsonl")
told("solve", "none.png", "go", "--out", "new")
told("solve", "go", "--out", "file")
told("solve", "cat.png", "go", "--out", "new")
told("solve", "go", "--out", "new", "--edit-queries", EDITOR="")
told("solve", "go", "--out", "new", "--goal", "Is it in?")
told("solve", "go", "--out", "new", "--fit.stps", "3")
assert not os.path.exists("new")
print(sorted({"torch", "lightning", "transformers", "diffusers", "peft"} & set(sys.modules)))
"""


def test_what_cannot_start_is_refused_before_anything_heavy_is_imported(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "cat.png")
    words = [sys.executable, "-c", COLD]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    expected = (
        "WORLD_SIZE: got 'two'",
        "RANK: got one",
        "--devices: got 0",
        "got 'none.tar', expected a tar or folder that exists",
        "--out file: got file, a file",
        "--out file/below: got file, a file",
        "none.jsonl: got",
        "got 'none.png', expected a file",
        "--out file: got file, a file",
        "cat.png: got a picture of 64 x 64",
        "EDITOR: got none",
        "goal, process: got 'Is it in?'",
        "perhaps 'fit.steps'",
    )
    for line, told in zip(lines, expected, strict=True):
        assert told in line
    assert "--config wan22-turbo" in lines[9]


def test_one_that_was_stopped_before_its_result_is_solved_again(place, capsys):
    words = ("pictures/a.png", "Move it.", "--goal", "Is it in?", "--process", "Is it whole?")
    assert solve(*words) == 0
    clip = (place / "out/instance/clip.mp4").read_bytes()
    (place / "out/instance/done.json").unlink()
    assert solve(*words) == 0
    assert (place / "out/instance/clip.mp4").read_bytes() == clip
    assert (place / "out/instance/done.json").exists()
