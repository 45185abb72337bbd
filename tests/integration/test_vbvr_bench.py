"""Real VBVR instances the whole way: import, fit, export, the kit's folder check, scores, report.

Final frames and ground truths of these are not kept in the repository: here they are drawn.
"""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.vbvr.layout import Place
from vlmteach.instances import decode, pack, read_samples
from vlmteach.video import read_video, write_video

DATA = Path(__file__).parent.parent / "data"
PLACES = {
    "O-30_bookshelf_data-generator": "In-Domain_50",
    "O-34_dot_to_dot_task_data-generator": "In-Domain_50",
    "O-47_sliding_puzzle_data-generator": "In-Domain_50",
    "G-174_arrange_circles_by_circumference_data-generator": "Out-of-Domain_50",
}


@pytest.fixture(scope="module")
def command(run_module):
    """Runs `python -m benchmarks.vbvr`; returns what it said."""

    def run(*words):
        code, told = run_module("benchmarks.vbvr", *words)
        assert code == 0, told
        return told

    return run


@pytest.fixture(scope="module")
def bench(tmp_path_factory, run_fit, command):
    """The real instances in their raw shape, fitted, exported and scored."""
    root = tmp_path_factory.mktemp("vbvr")
    shutil.copytree(DATA / "vbvr", root / "raw")
    for first in (root / "raw").rglob("first_frame.png"):
        image = Image.open(first).convert("RGB").resize((128, 128))
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(first.with_name("final_frame.png"))
        write_video(first.with_name("ground_truth.mp4"), np.stack([np.array(image)] * 3), 16)
        first.with_name("metadata.json").write_text('{"solution": "held out"}')
    shutil.copytree(DATA / "evalkit", root / "kit")
    packed = pack(root / "raw", root / "data.tar")
    assert (len(packed.keys), packed.refused) == (4, ())
    run_fit("--instances", root / "data.tar", "--out", root / "run", "--fit.steps=1")
    shared = ("--instances", root / "data.tar")
    rows = ("--method-rows", "static", "end_jump")
    command("export", "--run", root / "run", *shared, "--out", root / "v", "--model", "ours", *rows)
    command("tree", *shared, "--out", root / "truth")
    return root


def test_instances_know_task_and_category_and_nothing_held_out(bench):
    for raw in read_samples(str(bench / "data.tar")):
        assert set(raw.members) == {"prompt.txt", "first.png", "json"}
        assert b"held out" not in b"".join(raw.members.values())
        instance = decode(raw)
        assert instance.task in PLACES
        assert instance.category in ("Abstraction", "Knowledge", "Perception")


def test_no_file_is_left_over_or_missing(bench):
    check = runpy.run_path(str(bench / "kit" / "check_folder.py"))["check"]
    for model in ("ours", "static", "end_jump"):
        assert check(bench / "v" / model, bench / "truth") == ([], [])
        found = {p.relative_to(bench / "v" / model) for p in (bench / "v" / model).rglob("*.mp4")}
        assert found == {Path(Place(s, task, "00000").video) for task, s in PLACES.items()}


def test_the_truth_tree_is_what_was_drawn(bench):
    for first in (bench / "raw").rglob("first_frame.png"):
        task = first.parts[-4]
        official = bench / "truth" / PLACES[task] / task / "00000"
        for path in official.iterdir():
            assert path.read_bytes() == first.with_name(path.name).read_bytes()


def test_videos_are_those_of_the_run(bench):
    manifest = json.loads((bench / "v" / "ours.json").read_text())
    folders = [entry["inputs"]["key"].replace("/", "__") for entry in manifest["videos"]]
    clips = {name: read_video(bench / "run" / name / "clip.mp4")[0].float() for name in folders}
    for entry, folder in zip(manifest["videos"], folders, strict=True):
        made = read_video(bench / "v" / "ours" / entry["path"])[0].float()
        factor = made.shape[1] // clips[folder].shape[1]
        small = made[:, factor // 2 :: factor, factor // 2 :: factor]
        far = {name: (small - clip).abs().mean().item() for name, clip in clips.items()}
        assert min(far, key=lambda name: far[name]) == folder
        assert far[folder] < 6  # noise, encoded twice
    assert manifest["run"]["config"]["fit"]["steps"] == 1


def test_scores_and_report(bench, command):
    out = bench / "scores"
    told = ("--videos", bench / "v", "--data", bench / "truth", "--out", out)
    command("score", "--kit", bench / "kit", *told, "--model", "ours", "static", "end_jump")
    text = command("report", out)
    line = next(line for line in text.splitlines() if line.startswith("| ours | sample mean"))
    assert line.endswith("| 3 + 1 | " + " | ".join(["0.250 [0.250, 0.250]"] * 3) + " |")
    assert "the ground truth itself 0.950 on 4 tasks" in text
    assert "| ours | micro_fit |" in text
