"""RULER's arithmetic on cases worked out by hand, and how a judge's answer is read."""

import json
import math
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch

from benchmarks.ruler import aggregate
from benchmarks.ruler.aggregate import aggregates, by_group, official, scored
from benchmarks.ruler.export import Exported, IncompleteError
from benchmarks.ruler.frames import facts, judged_frames, retagged, step
from benchmarks.ruler.items import Item
from benchmarks.ruler.judging import identity_of
from benchmarks.ruler.report import render, report, table
from benchmarks.ruler.rows import Identity, RowsFile, read_rows
from benchmarks.table.rows import checked
from vlmteach.instances import RawSample
from vlmteach.instances.ruler import CATEGORIES, METRICS, Checklist
from vlmteach.video import read_video, write_video

IF, VC, VF, RC = METRICS


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(aggregate, "DRAWS", 100)


def labels(**given):
    """labels(IF="gp", VC="m"): one letter per question."""
    names = {"IF": IF, "VC": VC, "VF": VF, "RC": RC}
    words = {"g": "Good", "m": "Medium", "p": "Poor"}
    return [(names[metric], words[c]) for metric, letters in given.items() for c in letters]


MEDIUM = labels(IF="m", VC="m", VF="m", RC="m")
VIDEOS = [
    scored("physics", "science", labels(IF="gp", VC="g", VF="m", RC="p")),  # 50 100 50 0
    scored("physics", "science", labels(IF="p", VC="p", VF="p", RC="p")),  # 0 0 0 0
    scored("chemistry", "science", labels(VC="m", VF="g", RC="gg")),  # 0 50 100 100
    scored("color", "vision rule", labels(VC="g", VF="g", RC="m")),  # - 100 100 50
    scored("chess", "game", labels(IF="g", VC="p", VF="p", RC="p")),  # 100 0 0 0
    scored("idioms", "semantic", MEDIUM),
    scored("subjective_change", "hypothetical", MEDIUM),
    scored("food", "humanity", MEDIUM),
]


def test_a_metric_without_questions_counts_zero():
    assert VIDEOS[2].values == (0, 50, 100, 100, 62.5)


def test_vision_rule_has_no_instruction_following():
    values = VIDEOS[3].values
    assert math.isnan(values[0])
    assert values[1:] == pytest.approx((100, 100, 50, 250 / 3))
    # Even where a checklist asks for it.
    asked = scored("color", "vision rule", labels(IF="p", VC="g", VF="g", RC="m"))
    assert asked.values[1:] == values[1:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Science: (50 + 0 + 0) / 3, (100 + 0 + 50) / 3, (50 + 0 + 100) / 3, (0 + 0 + 100) / 3.
        # IF: (16.67 + 100 + 50 + 50 + 50) / 5; VC, VF: (50 + 100 + 0 + 3 * 50) / 6; RC: (33.33 +
        # 50 + 0 + 3 * 50) / 6; overall: the mean of the four.
        ("official", (160 / 3, 50, 50, 350 / 9, (160 / 3 + 100 + 350 / 9) / 4)),
        # IF: (16.67 + 150) / 4; VC, VF: (50 + 100 + 150) / 5; RC: (33.33 + 50 + 150) / 5.
        ("official without game", (125 / 3, 60, 60, 140 / 3, (125 / 3 + 120 + 140 / 3) / 4)),
        # IF over 7 videos, the others over 8; overall: the mean of the videos' averages 50, 0,
        # 62.5, 83.33, 25, 50, 50, 50.
        ("instance mean", (300 / 7, 50, 50, 37.5, (237.5 + 250 / 3 + 50) / 8)),
        ("instance mean without game", (200 / 6, 400 / 7, 400 / 7, 300 / 7, 1037.5 / 3 / 7)),
        # IF over 6 tasks: physics 25, chemistry 0, chess 100, three of 50; overall over 7: physics
        # 25, chemistry 62.5, color 83.33, chess 25, three of 50.
        ("task mean", (275 / 6, 350 / 7, 375 / 7, 300 / 7, (262.5 + 250 / 3) / 7)),
        ("task mean without game", (35, 350 / 6, 375 / 6, 300 / 6, (237.5 + 250 / 3) / 6)),
    ],
)
def test_aggregates_by_hand(name, expected):
    cells = aggregates(VIDEOS)[name]
    assert [cells[c]["mean"] for c in aggregate.COLUMNS] == pytest.approx(expected)
    assert {cell["n"] for cell in cells.values()} == {7 if "without" in name else 8}


def test_the_published_overall():
    """Wan2.2 A14B in RULER-Bench's README: rows are categories, columns IF, VC, VF, RC."""
    cells = [
        [37.15, 68.52, 80.37, 17.16],  # science
        [16.29, 64.56, 80.13, 14.12],  # game
        [48.77, 82.35, 82.70, 37.73],  # semantics
        [61.11, 64.74, 77.03, 12.93],  # hypothesis
        [49.76, 72.34, 83.15, 30.21],  # humanity
        [math.nan, 59.03, 65.55, 29.34],  # vision
    ]
    result = official(torch.tensor(cells, dtype=torch.float64)).tolist()
    assert result[:4] == pytest.approx([42.62, 68.59, 78.15, 23.58], abs=0.0051)
    assert round(result[4], 2) == 53.24
    averages = torch.tensor([[42.62, 68.59, 78.15, 23.58]], dtype=torch.float64)
    assert official(averages)[4].item() == pytest.approx(53.24, abs=0.0051)


def test_without_a_category_there_is_no_official_aggregate():
    found = aggregates([video for video in VIDEOS if video.category != "humanity"])
    assert found["official"] == found["official without game"] == {}
    assert found["task mean"]["average"]["n"] == 7
    no_game = aggregates([video for video in VIDEOS if video.category != "game"])
    assert no_game["official"] == {}
    assert no_game["official without game"][IF]["mean"] == pytest.approx(125 / 3)
    only_vision = aggregates([VIDEOS[3]])
    assert IF not in only_vision["instance mean"]
    assert IF not in by_group([VIDEOS[3]], "category")["vision rule"]


def test_intervals_draw_within_categories():
    """Categories that differ, of videos that do not, leave nothing to chance in the official
    aggregate; the instance mean depends on how many of each category are drawn."""
    videos = [
        scored(c, c, labels(IF=x, VC=x, VF=x, RC=x))
        for c, x in zip(CATEGORIES, "gpgpgp", strict=True)
        for _ in range(4)
    ]
    found = aggregates(videos)
    cell = found["official"]["average"]
    assert cell["low"] == cell["mean"] == cell["high"]
    cell = found["instance mean"]["average"]
    assert cell["low"] < cell["mean"] - 5 < cell["mean"] + 5 < cell["high"]
    assert aggregates(videos) == found


# Rows and reports

ITEM = Item(
    "physics/0",
    Checklist("physics", "0", "science", ((IF, "Does it fall?"), (RC, "Down?")), "It falls."),
    "content",
    "digest",
    RawSample("physics/0", "x.tar", {"prompt.txt": b"A ball falls."}),
    None,
)

MODEL_VIDEOS = {"physics/0": "aa", "color/1": "bb"}


def verdict_row(item, model, judge="j", given=None, **fields):
    identity = identity_of(model, item, judge)
    pairs = given or [(metric, "Good") for metric, _ in item.checklist.questions]
    return {**asdict(identity), "status": "done", "labels": pairs, **fields}


def as_rows(*rows):
    return {Identity(**{f.name: r[f.name] for f in fields(Identity)}): r for r in rows}


COLOR = Item(
    "color/1",
    Checklist("color", "1", "vision rule", ((RC, "Is it red?"),), ""),
    "content2",
    "digest2",
    RawSample("color/1", "x.tar", {}),
    None,
)


def test_missing_verdicts_are_announced_and_never_zero(tmp_path):
    ours = Exported("ours", tmp_path, "qwen3_vl", MODEL_VIDEOS)
    base = Exported("base", tmp_path, "qwen3_vl", {"physics/0": "cc"})
    failed = {**verdict_row(COLOR, ours), "status": "error", "error": "no | reply"}
    rows = as_rows(verdict_row(ITEM, ours, served="j-1"), failed, verdict_row(ITEM, base))
    with pytest.raises(IncompleteError) as caught:
        report([ITEM, COLOR], [ours, base], rows, leave_out=False)
    assert caught.value.missing == [
        "ours, judge j: color/1.mp4: 'no | reply'",
        "base, judge j: color/1.mp4: no video",
    ]
    (section,) = report([ITEM, COLOR], [ours, base], rows, leave_out=True)
    first = section["models"][0]
    assert (first["expected"], first["scored"]) == (2, 1)
    assert first["aggregates"]["instance mean"][IF]["mean"] == 100  # not halved
    text = render([section])
    assert "**ours: 1 of 2 videos have no verdict and are left out" in text
    assert "- color/1.mp4: 'no   reply'" in text
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert len(titles) == 1 + 6 + 2 + 2
    assert all("judge: j" in title for title in titles)
    assert "called itself j-1" in text
    assert "2 of the benchmark's 40 tasks" in text
    assert "No instance of: game, humanity, hypothetical, semantic" in text


def test_judges_are_never_mixed_and_stale_rows_do_not_count(tmp_path):
    ours = Exported("ours", tmp_path, "qwen3_vl", MODEL_VIDEOS)
    older = Exported("ours", tmp_path, "qwen3_vl", {"physics/0": "old", "color/1": "old"})
    poor = [(IF, "Poor"), (RC, "Poor")]
    rows = as_rows(
        verdict_row(ITEM, ours),
        verdict_row(COLOR, ours),
        verdict_row(ITEM, ours, judge="k", given=poor),
        verdict_row(COLOR, ours, judge="k"),
        verdict_row(ITEM, older, judge="l"),
    )
    sections = report([ITEM, COLOR], [ours], rows, leave_out=False)
    means = [s["models"][0]["categories"]["science"][IF]["mean"] for s in sections]
    assert [s["judge"] for s in sections] == ["j", "k"]
    assert means == [100, 0]
    clips = checked(table([ITEM, COLOR], [ours], rows, sections), "table")
    assert len(clips) == 4
    assert {clip["setting"].split(", prompt")[0] for clip in clips} == {
        "ours, judge j",
        "ours, judge k",
    }
    assert [clip[IF] for clip in clips] == [100, None, 0, None]
    with pytest.raises(ValueError, match="no verdict on any"):
        report([ITEM], [ours], as_rows(verdict_row(ITEM, older)), leave_out=True)


def test_rows_survive_a_torn_line_and_a_verdict_stands(tmp_path):
    path = tmp_path / "rows.jsonl"
    ours = Exported("ours", tmp_path, "qwen3_vl", MODEL_VIDEOS)
    done = verdict_row(ITEM, ours)
    error = {**verdict_row(COLOR, ours), "status": "error", "error": "one"}
    with RowsFile(path) as rows:
        for row in (done, {**done, "status": "error"}, error, {**error, "error": "two"}):
            rows.append(row)
        with pytest.raises(ValueError, match="another process"):
            RowsFile(path)
    with path.open("a") as file:
        file.write('{"status": "do')
    assert [row.get("error") for row in read_rows(path).values()] == [None, "two"]
    with RowsFile(path) as rows:
        assert len(rows.known) == 2
        rows.append(verdict_row(COLOR, ours))
    assert [row["status"] for row in read_rows(path).values()] == ["done", "done"]
    for bad in ("[]", json.dumps({**done, "labels": [[IF, "Great"]]}), '{"status": "done"}'):
        path.write_text(f"{json.dumps(done)}\n{bad}\n")
        with pytest.raises(ValueError, match="line 2"):
            read_rows(path)


# Frames


def clip(tmp_path, frames, fps, size=(48, 64)):
    path = tmp_path / "clip.mp4"
    levels = np.linspace(0, 255, frames).astype(np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (frames, *size, 3))
    write_video(path, pixels, fps)
    return path.read_bytes()


def test_the_judge_sees_every_half_second_of_what_the_file_says(tmp_path):
    assert [step(fps) for fps in (1, 3, 4, 15.9, 16, 24, 30)] == [1, 1, 2, 7, 8, 12, 15]
    video = clip(tmp_path, 25, 16)
    assert facts(video, "v") == (25, 16)
    levels = [image.getpixel((5, 5))[0] for image in judged_frames(video, "v")]  # pyright: ignore
    assert levels == pytest.approx([255 * n / 24 for n in (0, 8, 16, 24)], abs=4)
    slower = retagged(video, 8, "v")
    assert facts(slower, "v") == (25, 8)
    assert len(judged_frames(slower, "v")) == 7
    assert torch.equal(read_video(slower)[0], read_video(video)[0])


def test_large_frames_are_scaled_and_small_ones_left(tmp_path):
    (image,) = judged_frames(clip(tmp_path, 2, 24, (500, 1000)), "v")
    assert image.size == (512, 256)
    (image,) = judged_frames(clip(tmp_path, 2, 24), "v")
    assert image.size == (64, 48)
    with pytest.raises(ValueError, match="expected an mp4"):
        judged_frames(b"no video", "v")
