"""Scoring through a stand-in kit in a process of its own: nothing that fails becomes a score."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.vbvr import kit as kit_module
from benchmarks.vbvr.__main__ import main
from benchmarks.vbvr.kit import Kit, KitError, identity
from benchmarks.vbvr.layout import TRUTH, Place
from benchmarks.vbvr.score import read_rows, score

KIT = Path(__file__).parent.parent / "data" / "evalkit"
SLIDING = "In-Domain_50/O-47_sliding_puzzle_data-generator"
SHELF = "In-Domain_50/O-30_bookshelf_data-generator"
CIRCLES = "Out-of-Domain_50/G-174_arrange_circles_by_circumference_data-generator"
PLACES = (f"{SHELF}/00000", f"{SLIDING}/00000", f"{SLIDING}/00001", f"{CIRCLES}/00000")


class Resources:
    """A data tree and models whose files say what the stand-in kit shall score."""

    def __init__(self, root):
        self.data, self.videos, self.out = root / "data", root / "videos", root / "scores"
        self.kit = root / "kit"
        shutil.copytree(KIT, self.kit, ignore=shutil.ignore_patterns("__pycache__"))
        for place in PLACES:
            for name in TRUTH:
                path = self.data / place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{place} {name}\n")
            self.truth(place, "0.95")

    def truth(self, place, words):
        (self.data / place / "ground_truth.mp4").write_text(f"say {words}")

    def model(self, name="ours", words=("0.1", "0.2", "0.3", "0.4")):
        for place, said in zip(PLACES, words, strict=True):
            path = self.videos / name / f"{place}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if said is not None:
                path.write_text(f"say {said}")

    def score(self, *models, python=sys.executable):
        return score(self.kit, python, self.videos, models or ["ours"], self.data, self.out)

    def rows(self, model="ours"):
        rows = read_rows(self.out / f"{model}.jsonl")
        return {f"{r['split']}/{r['task']}/{r['index']}": r for r in rows}

    def check(self):
        return json.loads((self.out / "kit.json").read_text())


@pytest.fixture
def bench(tmp_path):
    bench = Resources(tmp_path)
    bench.model()
    return bench


def test_every_video_gets_both_scores_with_their_provenance(bench):
    assert bench.score() == 0
    rows = bench.rows()
    assert list(rows) == list(PLACES)
    row = rows[PLACES[1]]
    assert (row["task_specific"], row["weighted"]) == (0.2, pytest.approx(0.35))
    assert row["dimensions"] == {"task_specific": 0.2, "visual_quality": 0.5}
    assert rows[PLACES[0]]["category"] == "Abstraction"  # as the kit says
    assert row["kit"]["opencv"] == "4.10.0"
    assert row["kit"] == identity(bench.kit) | {
        "python": row["kit"]["python"],
        "opencv": "4.10.0",
        "numpy": "none",
    }
    assert "the kit chats" in (bench.out / "kit.log").read_text()
    assert not list(bench.kit.rglob("__pycache__"))  # the checkout is left as it was


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("raise", "list index out of range"),
        ("nan", "not a finite number"),  # the kit's clamp turns it into 1.0
        ("inf", "not a finite number"),
        ("empty", "could read no frame"),
        ("die", "process ended with 9"),
        (None, "no video"),
    ],
)
def test_an_error_is_an_error_row_and_the_rest_is_scored(bench, said, message):
    bench.model(words=("0.1", said, "0.3", "0.4"))
    assert bench.score() == 1
    rows = bench.rows()
    assert message in rows[PLACES[1]]["error"]
    assert rows[PLACES[1]]["status"] == "error"
    assert "task_specific" not in rows[PLACES[1]]
    assert [rows[p]["task_specific"] for p in (PLACES[0], *PLACES[2:])] == [0.1, 0.3, 0.4]


def test_a_kit_that_hangs_is_ended_and_started_again(bench, monkeypatch):
    place, other = (Place(*folder.split("/")) for folder in PLACES[1:3])
    (bench.videos / "ours" / place.video).write_text("say sleep")
    kit = Kit(bench.kit, sys.executable, bench.kit / "log")
    try:
        monkeypatch.setattr(kit_module, "SECONDS", 0.5)
        with pytest.raises(KitError, match=r"no reply within 0\.5 s"):
            kit.score(bench.data, place, bench.videos / "ours" / place.video)
        monkeypatch.undo()
        scored = kit.score(bench.data, other, bench.videos / "ours" / other.video)
        assert scored["task_specific"] == 0.3
    finally:
        kit.close()


def test_only_what_is_missing_is_scored_again(bench):
    bench.model(words=("0.1", "raise", "draw", "0.4"))
    assert bench.score() == 1
    before = bench.rows()
    log = (bench.out / "kit.log").read_text().count("chats")
    bench.model(words=("0.1", "0.2", "draw", "0.5"))
    assert bench.score() == 0
    # Two videos: the one that failed and the one that changed; the truth was checked before.
    assert (bench.out / "kit.log").read_text().count("chats") == log + 2
    after = bench.rows()
    assert [after[place]["task_specific"] for place in PLACES[1::2]] == [0.2, 0.5]
    assert after[PLACES[0]] == before[PLACES[0]]
    # Drawn anew, it would be the same: each video is scored from the same seed.
    (bench.out / "ours.jsonl").unlink()
    bench.score()
    assert bench.rows() == after


def test_rows_that_were_cut_off_are_made_again(bench):
    bench.score()
    path = bench.out / "ours.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    bench.score()
    assert path.read_text() == whole


@pytest.mark.parametrize("change", ["kit", "truth"])
def test_rows_of_another_kit_or_truth_are_made_again(bench, change):
    bench.score()
    log = (bench.out / "kit.log").read_text().count("chats")
    if change == "kit":
        (bench.kit / "vbvr_bench" / "new.py").write_text("# changed")
    else:
        (bench.data / PLACES[2] / "prompt.txt").write_text("another")
    bench.score()
    again = (bench.out / "kit.log").read_text().count("chats") - log
    # With another kit the self-check is due again: two calls for each of three tasks.
    assert again == (4 + 6 if change == "kit" else 1)


def test_the_truth_is_scored_first_and_must_score_high(bench):
    bench.score()
    check = bench.check()
    assert check["passed"]
    assert check["mean_task_specific"] == pytest.approx(0.95)
    assert [row["sample"] for row in check["rows"]] == [PLACES[0], PLACES[1], PLACES[3]]
    for place in PLACES:
        bench.truth(place, "0.5")
    with pytest.raises(ValueError, match=r"mean 0\.500, expected above 0\.67"):
        bench.score("ours")
    assert not bench.check()["passed"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("raise", "list index out of range"),
        ("0.95 two-faced", "task-specific 0.475 alone and 0.95"),
    ],
)
def test_a_kit_that_fails_on_the_truth_scores_nothing(bench, said, message):
    bench.truth(PLACES[3], said)
    with pytest.raises(ValueError, match="1 faults when it scored the ground truth") as refusal:
        bench.score()
    assert message in str(refusal.value)
    assert not (bench.out / "ours.jsonl").exists()


def test_opencv_five_is_refused_with_a_remedy(bench):
    (bench.kit / "cv2.py").write_text('__version__ = "5.0.0"')
    with pytest.raises(ValueError, match=r"got OpenCV 5\.0\.0, expected one below 5") as refusal:
        bench.score()
    assert 'pip install "opencv-python-headless<5"' in str(refusal.value)


def test_the_interpreter_may_be_named_from_here(bench, monkeypatch):
    (bench.videos.parent / "bin").mkdir()
    (bench.videos.parent / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.chdir(bench.videos.parent)
    assert bench.score(python="bin/python") == 0


def test_an_interpreter_that_cannot_run_the_kit_is_refused(bench):
    (bench.kit / "cv2.py").write_text("import nothing_of_that_name")
    with pytest.raises(ValueError, match="No module named 'nothing_of_that_name'"):
        bench.score()
    with pytest.raises(ValueError, match="expected an interpreter"):
        bench.score(python="no-such-python")
    shutil.rmtree(bench.kit / "vbvr_bench")
    with pytest.raises(ValueError, match="expected a checkout of github"):
        bench.score()


def git(folder, *words):
    name = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


def test_the_kits_commit_is_recorded_and_never_that_of_a_tree_around_it(bench):
    assert identity(bench.kit)["commit"] == "unknown"
    git(bench.kit.parent, "init")
    git(bench.kit.parent, "commit", "--allow-empty", "-m", "around")
    assert identity(bench.kit)["commit"] == "unknown"
    git(bench.kit, "init")
    git(bench.kit, "add", ".")
    git(bench.kit, "commit", "-m", "kit")
    clean = identity(bench.kit)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (bench.kit / "vbvr_bench" / "__init__.py").write_text("# changed")
    dirty = identity(bench.kit)
    assert (dirty["commit"], dirty["dirty"]) == (clean["commit"], True)
    assert dirty["source_sha256"] != clean["source_sha256"]


def test_folders_that_do_not_match_are_refused_before_anything_is_scored(bench, capsys):
    stray = bench.videos / "ours" / SLIDING / "00009.mp4"
    stray.touch()
    words = ["--kit", bench.kit, "--videos", bench.videos, "--data", bench.data, "--out", bench.out]
    assert main(["score", *map(str, words), "--model", "ours"]) == 2
    assert "00009.mp4" in capsys.readouterr().err
    stray.unlink()
    assert main(["score", *map(str, words), "--model", "theirs"]) == 2
    assert "--model: got theirs" in capsys.readouterr().err
    manifest = {"videos": [{"path": f"{PLACES[0]}.mp4", "sha256": "0" * 64}]}
    (bench.videos / "ours.json").write_text(json.dumps(manifest))
    assert main(["score", *map(str, words), "--model", "ours"]) == 2
    assert "not those of its manifest" in capsys.readouterr().err
    assert not bench.out.exists()


def test_the_command_says_when_rows_are_errors(bench, capsys):
    bench.model(words=("0.1", "raise", "0.3", "0.4"))
    words = ["--kit", bench.kit, "--videos", bench.videos, "--data", bench.data, "--out", bench.out]
    assert main(["score", *map(str, words), "--model", "ours"]) == 3
    said = capsys.readouterr().out
    assert f"{PLACES[1]}: list index out of range" in said
    assert "its commit is unknown" in said
    bench.model()
    assert main(["score", *map(str, words), "--model", "ours"]) == 0
