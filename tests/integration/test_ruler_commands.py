"""RULER-Bench from a packed set and finished runs to its tables, before a server that speaks the
chat completions protocol."""

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.ruler import aggregate
from benchmarks.ruler.__main__ import main
from benchmarks.ruler.rows import read_rows
from benchmarks.table import read_rows as read_table
from tests.integration.chat_server import ChatServer, completion
from vlmteach.instances import decode, pack, read_samples
from vlmteach.ledger import folder_name
from vlmteach.video import write_video

KEY = "sk-a-key-that-must-not-be-seen"
ROOT = Path(__file__).parent.parent.parent
METRICS = ("Instruction Following", "Visual Consistency", "Visual Fidelity", "Rule Coherence")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(aggregate, "DRAWS", 20)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# The server


def verdict(*labels):
    return completion(f"<think>seen</think><answer>{json.dumps(labels)}</answer>", model="j-2026")


@pytest.fixture
def server():
    server = ChatServer()
    yield server
    server.close()


def questions_of(request):
    return request["messages"][1]["content"][-1]["text"].removeprefix("Questions:\n").splitlines()


def all_good(number, request):
    return verdict(*["Good"] * len(questions_of(request)))


# The set and the runs


def png(colour, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(task, index, category, metrics=METRICS, **fields):
    return {
        "prompt": f"Show {task} {index}.",
        "implicit_explanation": f"Expected of {task} {index}.",
        "index": index,
        "checklist": [{metric: f"{metric} of {task} {index}?"} for metric in metrics],
        "task_name": task,
        "category": category,
        **fields,
    }


ROWS = [
    row("physics", 0, "science", input_image_path="a.png", gt_image_path="b.png"),
    row("physics", 1, "science", metrics=METRICS[1:]),
    row("color", 0, "vision rule", metrics=METRICS[1:]),
    row("Go", 7, "game"),
]


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    root = tmp_path_factory.mktemp("ruler")
    (root / "a.png").write_bytes(png("red"))
    (root / "b.png").write_bytes(png("blue"))
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    packed = pack(root, root / "ruler.tar")
    assert not packed.refused
    return root / "ruler.tar"


def make_run(folder, tar, fps=8, teacher="qwen3_vl"):
    """What `vlmteach.fit` leaves behind, as far as an export reads it."""
    folder.mkdir(parents=True)
    config = {"method": "base", "run": {"seed": 3}, "teacher": {"family": teacher}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for number, raw in enumerate(read_samples(str(tar))):
        place = folder / folder_name(raw.key)
        place.mkdir()
        frames = np.full((9, 32, 48, 3), 20 * number + len(folder.name), np.uint8)
        write_video(place / "clip.mp4", frames, fps)
        done = {"digest": decode(raw).digest, "seed": 3, "steps": 0, "compute": {"seconds": 1.5}}
        (place / "done.json").write_text(json.dumps(done))
    return folder


@pytest.fixture
def run(tmp_path, tar):
    return make_run(tmp_path / "run", tar)


@pytest.fixture
def videos(tmp_path, tar, run):
    out = tmp_path / "videos"
    assert main(["export", "--instances", str(tar), "--out", str(out), f"ours={run}"]) == 0
    return out


def judging(tar, videos, tmp_path, server, *more):
    return [
        *("judge", "--instances", str(tar), "--videos", str(videos)),
        *("--rows", str(tmp_path / "rows.jsonl"), "--endpoint", server.url, "--model", "j", *more),
    ]


# Export


def test_export_writes_the_official_layout(tmp_path, tar, run, videos):
    found = sorted(p.relative_to(videos).as_posix() for p in videos.rglob("*") if p.is_file())
    names = ["Go/7.mp4", "color/0.mp4", "physics/0.mp4", "physics/1.mp4"]
    assert found == sorted(["ours.json", *(f"ours/{name}" for name in names)])
    manifest = json.loads((videos / "ours.json").read_text())
    assert (manifest["teacher"], manifest["seed"]) == ("qwen3_vl", 3)
    assert [v["video"] for v in manifest["videos"]] == [*names[2:], *names[1::-1]]
    for video in manifest["videos"]:
        data = (videos / "ours" / video["video"]).read_bytes()
        assert data == (run / folder_name(video["key"]) / "clip.mp4").read_bytes()
        assert video["sha256"] == hashlib.sha256(data).hexdigest()
        assert (video["frames"], video["fps"], video["judged_frames"]) == (9, 8, 3)


def test_export_tags_another_rate(tmp_path, tar, run):
    out = tmp_path / "videos"
    arguments = ["export", "--instances", str(tar), "--out", str(out), "--fps"]
    assert main([*arguments, "4", f"slow={run}"]) == 0
    manifest = json.loads((out / "slow.json").read_text())
    assert {(v["fps"], v["judged_frames"]) for v in manifest["videos"]} == {(4, 5)}
    assert main([*arguments, "0", f"slow={run}"]) == 2


def test_export_refuses_an_incomplete_set(tmp_path, tar, run, capsys):
    (run / "physics__1" / "clip.mp4").unlink()
    (run / "color__0" / "done.json").unlink()
    (run / "physics__0" / "done.json").write_text('{"digest": "other"}')
    (run / "Go__7" / "clip.mp4").write_bytes(b"no video")
    out = tmp_path / "videos"
    arguments = ["export", "--instances", str(tar), "--out", str(out), f"ours={run}"]
    assert main(arguments) == 3
    told = capsys.readouterr().err
    assert "got 0 of 4 clips" in told
    for part in (
        "physics/1: no clip.mp4",
        "color/0: no result",
        "physics/0: made from other content",
        "Go/7: clip.mp4: got",
    ):
        assert part in told
    assert not out.exists()


def test_export_refuses_files_left_over_and_names_that_are_none(tmp_path, tar, run, videos, capsys):
    arguments = ["export", "--instances", str(tar), "--out", str(videos)]
    assert main([*arguments, f"ours={run}"]) == 0  # once more is no harm
    (videos / "ours" / "physics" / "2.mp4").write_bytes(b"of another set")
    assert main([*arguments, f"ours={run}"]) == 2
    assert "physics/2.mp4" in capsys.readouterr().err
    for given in (f"../ours={run}", f"a/b={run}", "ours", f"a={tmp_path / 'none'}"):
        assert main([*arguments, given]) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"run", "videos"}


# Judge


def test_the_request(tmp_path, tar, videos, server, monkeypatch, capfd):
    server.script = all_good
    monkeypatch.setenv("A_KEY", KEY)
    assert main(judging(tar, videos, tmp_path, server, "--key-env", "A_KEY")) == 0
    assert len(server.requests) == 4
    for path, headers, body in server.requests:
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert (body["model"], body["temperature"]) == ("j", 0)
        assert [m["role"] for m in body["messages"]] == ["system", "user"]
    by_questions = {tuple(questions_of(body)): body for *_, body in server.requests}
    assert len(by_questions) == 4  # one call a video, all questions in it
    body = next(b for q, b in by_questions.items() if "of physics 0?" in q[0])
    content = body["messages"][1]["content"]
    images = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert len(images) == 5  # first frame, expected result, frames 0, 4 and 8
    sizes = []
    for url in images:
        kind, data = url.split(",")
        assert kind == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert sizes == [(40, 30)] * 2 + [(48, 32)] * 3
    texts = [part["text"] for part in content if part["type"] == "text"]
    assert "Prompt:\nShow physics 0." in texts
    assert "What was expected:\nExpected of physics 0." in texts
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert KEY.encode() not in written
    assert KEY not in "".join(capfd.readouterr())


def test_judge_and_report(tmp_path, tar, videos, server, capsys):
    server.script = all_good
    assert main(judging(tar, videos, tmp_path, server)) == 0
    rows = list(read_rows(tmp_path / "rows.jsonl").values())
    assert {row["served"] for row in rows} == {"j-2026"}
    reporting = ["report", "--instances", str(tar), "--videos", str(videos), "--rows"]
    reporting += [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "report")]
    assert main(reporting) == 0
    (section,) = json.loads((tmp_path / "report" / "report.json").read_text())
    assert section["judge"] == f"j at {server.url.split('/')[2]}"
    (model,) = section["models"]
    mean = {name: cells.get("Instruction Following") for name, cells in model["aggregates"].items()}
    assert mean["official"] is None  # four categories are absent
    # physics/1 asks nothing about it and counts 0; color has none.
    assert mean["instance mean"]["mean"] == pytest.approx(200 / 3)
    assert mean["task mean"]["mean"] == 75
    assert mean["instance mean without game"]["mean"] == 50
    assert "judge: j at" in (tmp_path / "report" / "report.md").read_text()
    clips = {row["key"]: row for row in read_table(tmp_path / "report")}
    assert len(clips) == model["scored"]
    assert {row["setting"] for row in clips.values()} == {model["model"]}
    averages = [row["average"] for row in clips.values()]
    assert sum(averages) / len(averages) == pytest.approx(
        model["aggregates"]["instance mean"]["average"]["mean"]
    )
    assert all(
        (row["seed"], row["seconds"]) == (3, 1.5) and row["category"] for row in clips.values()
    )
    # A video that is exported anew has no verdict any more.
    run = make_run(tmp_path / "another", tar)
    export = ["export", "--instances", str(tar), "--out", str(videos), f"ours={run}"]
    assert main(export) == 0
    assert main(reporting) == 2
    assert "no verdict on any of these videos" in capsys.readouterr().err


def test_malformed_answers_become_error_rows_and_are_tried_again(
    tmp_path, tar, videos, server, capsys
):
    def script(number, request):
        if "physics 1?" in questions_of(request)[0]:
            return verdict("Good")  # of three
        return all_good(number, request)

    server.script = script
    assert main(judging(tar, videos, tmp_path, server, "--concurrency", "1")) == 3
    assert "3 judged, 0 known from before, 1 failed, 0 missing" in capsys.readouterr().out
    assert len(server.requests) == 6
    assert len(server.requests[-3][2]["messages"]) in (2, 4)
    rows = read_rows(tmp_path / "rows.jsonl")
    (bad,) = [row for row in rows.values() if row["status"] == "error"]
    assert "1 ratings, expected 3" in bad["error"]
    assert "labels" not in bad
    reporting = ["report", "--instances", str(tar), "--videos", str(videos), "--rows"]
    reporting += [str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "report")]
    assert main(reporting) == 3
    assert main([*reporting, "--missing", "leave-out"]) == 0
    server.script = all_good
    assert main(judging(tar, videos, tmp_path, server)) == 0
    assert len(server.requests) == 7
    assert main(reporting) == 0


def test_a_killed_judging_goes_on_where_it_was(tmp_path, tar, videos, server):
    reached, free = threading.Event(), threading.Event()

    def script(number, request):
        if number == 2:
            reached.set()
            free.wait(600)
        return all_good(number, request)

    server.script = script
    command = [sys.executable, "-m", "benchmarks.ruler"]
    command += judging(tar, videos, tmp_path, server, "--concurrency", "1")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    assert reached.wait(600)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = tmp_path / "rows.jsonl"
    recorded = len(read_rows(rows))
    assert recorded == 2
    with rows.open("ab") as file:
        file.write(b'{"half": ')  # as if it had died in the middle of a line
    free.set()
    server.script = all_good
    assert main(judging(tar, videos, tmp_path, server)) == 0
    asked = [tuple(questions_of(body)) for *_, body in server.requests]
    assert len(asked) == 5  # the one in the air twice
    assert sorted(map(asked.count, set(asked))) == [1, 1, 1, 2]
    assert len(read_rows(rows)) == 4
    assert main(judging(tar, videos, tmp_path, server)) == 0
    assert len(server.requests) == 5


def test_a_missing_or_changed_video_is_no_call(tmp_path, tar, videos, server, capsys):
    server.script = all_good
    (videos / "ours" / "Go" / "7.mp4").unlink()
    (videos / "ours" / "color" / "0.mp4").write_bytes(b"changed")
    assert main(judging(tar, videos, tmp_path, server)) == 3
    told = capsys.readouterr()
    assert "ours/Go/7.mp4: missing" in told.err
    assert "changed; export again" in told.err
    assert "2 judged, 0 known from before, 1 failed, 1 missing" in told.out
    assert len(server.requests) == 2


def test_a_judge_that_says_nothing_is_left_alone(tmp_path, tar, videos, server, capsys):
    server.script = lambda number, request: (400, {}, b'{"error": "no images"}')
    assert main(judging(tar, videos, tmp_path, server, "--concurrency", "1")) == 2
    assert len(server.requests) == 3
    assert "no reply for 3 videos one after another" in capsys.readouterr().err


def test_a_greedy_judge_that_fails_at_some_videos_judges_the_others(
    tmp_path, tar, videos, server, capsys
):
    """At the first three it fails again each time; what it has not seen comes before them."""

    def script(number, request):
        if "Go" in questions_of(request)[0]:
            return all_good(number, request)
        return 400, {}, b'{"error": "too long"}'

    server.script = script
    command = judging(tar, videos, tmp_path, server, "--concurrency", "1")
    assert main(command) == 2
    assert "no reply for 3 videos" in capsys.readouterr().err
    for judged, known in ((1, 0), (0, 1)):
        assert main(command) == 3
        told = capsys.readouterr().out
        assert f"{judged} judged, {known} known from before, 3 failed, 0 missing" in told
    states = [row["status"] for row in read_rows(tmp_path / "rows.jsonl").values()]
    assert sorted(states) == ["done", "error", "error", "error"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--key-env", "NO_SUCH_KEY"], "got no such variable"),
        (["--model", "Qwen2.5-VL-72B"], "of the family 'qwen'"),
        (["--local", "x"], "expected one of the two"),
        (["--concurrency", "0"], "at least 1"),
        (["--endpoint", "file:///etc/passwd"], "base address"),
        (["--endpoint", "https://me:secret@host/v1"], "password"),
    ],
)
def test_a_wrong_command_asks_nobody(tmp_path, tar, videos, server, more, message, capsys):
    assert main(judging(tar, videos, tmp_path, server, *more)) == 2
    assert message in capsys.readouterr().err
    assert "secret" not in capsys.readouterr().err
    assert not server.requests
