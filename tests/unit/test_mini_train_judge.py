"""The judge's training: rows equal the real prompts, a few steps run, the folder loads."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.mini.train.judge import bank, measure
from benchmarks.mini.train.judge import network as judge_network
from benchmarks.mini.train.judge import training as judge
from benchmarks.mini.train.judge.frame_losses import FrameLosses
from benchmarks.mini.train.judge.rows import JudgeWriter
from benchmarks.mini.train.judge.tokens import Width, save_folder
from benchmarks.mini.train.teacher import fits as teacher_fits
from benchmarks.mini.train.teacher.dense_losses import colour_shares
from benchmarks.mini.train.teacher.found_videos import FoundVideos
from benchmarks.mini.train.teacher.rows import TIMES
from benchmarks.mini.train.teacher.training import save_weights, to_frames
from benchmarks.viewer import Viewer
from vlmteach.builtin.paths import SHIPPED
from vlmteach.instances.write import write_tar
from vlmteach.mini import world
from vlmteach.mini.world import Execution, answers, families, make, perform
from vlmteach.mini.world.draw import GROUND
from vlmteach.options import read_config
from vlmteach.queries import parse_queries
from vlmteach.record import write_text
from vlmteach.teachers.internvl import InternVLTeacher
from vlmteach.teachers.loading import beside

TINY = Width(
    hidden=32, layers=2, heads=2, inner=48, vision_hidden=16, vision_layers=1, vision_heads=1,
    vision_inner=32,
)  # fmt: skip
PARTS = (("wan", "wan"), ("wan/vae", "vae"), ("taehv.safetensors",) * 2, ("teacher",) * 2)
"""Shipped files, and what a recipe calls them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("mini") / "judge"
    save_folder(where, TINY)
    save_weights(judge_network.new_network(where, 3).state_dict(), where, torch.float32)
    return where


@pytest.fixture(scope="module")
def writer(folder) -> JudgeWriter:
    return JudgeWriter(folder)


def test_the_batched_forward_is_the_familys_own(writer):
    tasks = [make(family.name, "train", 5) for family in families()[:3]]
    videos = to_frames([perform(t, Execution(extent=0.6)) / np.float32(255) for t in tasks])
    asked = [[query.text for query in task.queries] for task in tasks]
    ours = writer.log_yes(writer.teacher.network, videos, writer.questions(asked))
    assert isinstance(writer.teacher, InternVLTeacher)
    for texts, video, row in zip(asked, videos, ours, strict=True):
        theirs = writer.teacher.log_p_yes(video, writer.teacher.prepare(texts, TIMES, 32, 32))
        torch.testing.assert_close(row, theirs, rtol=1e-4, atol=1e-4)


def test_a_video_costs_few_tokens(writer):
    """Nine a frame, and three around them: marks are one token, as the answer's instruction is."""
    prompt = writer.prompt("Is the disc red?")
    assert int((prompt.ids == writer.video).sum()) == 9 * 9
    assert prompt.prefix <= 9 * 12 + 4


def test_a_request_row_predicts_what_the_family_writes(writer):
    from PIL import Image

    task = make("reach", "train", 5)
    rows = writer.requests([task], [3])
    first = to_frames([task.first_frame[None] / np.float32(255)])
    logits, *_ = writer.read(writer.teacher.network, first, rows)
    before = writer.tokenizer.decode(rows.ids[0, : int(rows.scored[0, 0]) + 1])
    request = before.split("</img>\n")[1].split("<|im_end|>")[0]
    written = writer.teacher.write(request, [Image.fromarray(task.first_frame)], 1)
    ours = writer.tokenizer.decode(logits[0, 0].argmax(), skip_special_tokens=True).strip()
    assert written == ours
    reply = writer.tokenizer.decode(rows.targets[0], skip_special_tokens=True)
    assert parse_queries(reply, max_process=3) == task.queries


def test_dense_losses_ask_each_token_for_its_own_places():
    frames = torch.tensor(GROUND)[None, None, :, None, None].repeat(1, 2, 1, 32, 32)
    frames[0, 1, :, 12:14, 22:28] = torch.tensor(world.COLOURS["red"])[:, None, None]
    red = 1 + list(world.COLOURS).index("red")
    losses = FrameLosses(16, 0)
    cells = losses.cells(colour_shares(frames))
    assert cells.shape == (1, 2 * 9, 9, 8)
    assert (cells[0, :9, :, red] < 0.01).all()
    shown = (cells[0, 9:, :, red] > 0.1).nonzero().tolist()
    # Rows 12 and 13 are in the fourth row of nine; columns 22 to 27 in the seventh and eighth.
    assert [place for place in shown if place[0] == 5] == [[5, 0], [5, 1]]
    assert {token for token, _ in shown} == {5}
    back = losses.first_cells(colour_shares(frames)[:, 1])
    assert torch.equal(back[0], cells[0, 9:])


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """A recipe with the shipped models, whose judge is tiny and learns from two short fits."""
    monkeypatch.setattr(judge, "WIDTH", TINY)
    monkeypatch.setattr(judge, "BATCH", 4)
    monkeypatch.setattr(teacher_fits, "STEPS", 1)
    monkeypatch.setattr(bank, "ROUNDS", 2)
    monkeypatch.setattr(bank, "FITS", 1)
    for shipped, name in PARTS:
        (tmp_path / name).symlink_to(SHIPPED / shipped)
    return tmp_path


def test_the_command_leaves_a_folder_that_loads_and_a_stop_changes_nothing(
    recipe, tmp_path_factory
):
    words = argparse.Namespace(seed=1, out=recipe, steps=4, minutes=5.0, threads=1)
    judge.run(words)
    rounds = [f"{number:08}.safetensors" for number in (0, 1)]
    assert sorted(file.name for file in (recipe / "found-judge").iterdir()) == rounds
    assert sorted(folder.name for folder in (recipe / "judge-at").iterdir()) == ["1", "2", "3"]
    whole = load_file(recipe / "state" / "judge.safetensors")

    other = tmp_path_factory.mktemp("other")
    for name in ("wan", "vae", "taehv.safetensors", "teacher"):
        (other / name).symlink_to(recipe / name)
    for minutes in (0.0, 0.0, 5.0):
        judge.run(argparse.Namespace(**vars(words) | {"minutes": minutes, "out": other}))
    pieces = load_file(other / "state" / "judge.safetensors")
    for name in whole:
        if name.startswith("average."):
            torch.testing.assert_close(whole[name], pieces[name], rtol=0, atol=1e-6)

    asked = read_config(["--config", "mini"]).teacher
    task = make("drop", "train", 2)
    clip = torch.from_numpy(task.truth)
    told = []
    for place in ("judge", "judge-at/1"):
        settings = beside(asked, str(recipe / place))
        assert (settings.family, settings.frames) == ("internvl", 9)
        told.append(Viewer(settings, torch.device("cpu")).p_yes(task.queries, clip, 8.0))
    assert told[0] != told[1]
    assert all(0 < p < 1 for view in told for p in view)


def test_found_videos_come_late_and_more_of_them_with_time(recipe, monkeypatch):
    asked = []

    def filled(out: Path, *, seed: int, rounds: int) -> FoundVideos:
        asked.append((out, rounds))
        return found

    found = bank.filled(recipe, seed=1, rounds=1, fits=2)
    monkeypatch.setattr(bank, "filled", filled)
    monkeypatch.setattr(bank, "ROUNDS", 10)
    save_folder(recipe / "judge", TINY)
    network = judge_network.new_network(recipe / "judge", 3)
    save_weights(network.state_dict(), recipe / "judge")
    stage = judge.JudgeStage(
        recipe / "judge", network, recipe=recipe, seed=3, steps=100, batch=4, more=("level",)
    )
    kinds = []
    for stage.done in (38, 40, 42, 70, 99):
        draw = torch.Generator().manual_seed(1)
        batch = stage.mixed(stage.batch(stage.done), stage.progress(stage.done), draw, {})
        kinds.append([item.kind == "found" for item in batch])
        for item in batch:
            assert item.labels == answers(item.task, item.video)
            assert item.task.split == "train"
    assert kinds == [[False] * 4] + [[True, True, False, False]] * 4
    assert asked == [(recipe, 6), (recipe, 10)]
    clips = [found.videos[end] for end in found.ends]
    assert len(clips) == 2
    one = found.delivered(np.random.default_rng(0))
    assert any(np.array_equal(one.video, clip / np.float32(255)) for clip in clips)


def test_a_bank_wants_a_teacher_and_is_filled_but_once(recipe, capsys):
    assert len(bank.filled(recipe, seed=1, rounds=1, fits=1).ends) == 1
    first = (recipe / "found-judge" / "00000000.safetensors").read_bytes()
    assert len(bank.filled(recipe, seed=1, rounds=2, fits=1).ends) == 2
    assert len(bank.filled(recipe, seed=1, rounds=1, fits=1).ends) == 1
    assert (recipe / "found-judge" / "00000000.safetensors").read_bytes() == first
    assert capsys.readouterr().out.count("gained") == 2
    (recipe / "teacher").unlink()
    with pytest.raises(ValueError, match="train slopes --out"):
        bank.filled(recipe, seed=1, rounds=3)


def test_agreement_counts_both_errors_and_the_order():
    strict = np.array([True, True, False, False])
    told = measure.agreement(strict, np.array([0.9, 0.4, 0.6, 0.1]))
    assert told == {
        "n": 4, "strict": 0.5, "agrees": 0.5, "false_yes": 0.25, "false_no": 0.25, "auc": 0.75,
    }  # fmt: skip
    assert measure.agreement(strict[:2], np.array([0.9, 0.4]))["auc"] is None


def test_drawn_clips_are_those_of_tuning_tasks_with_the_rules_verdicts():
    clips = list(measure.drawn(6, 0))
    assert {clip.task.split for clip in clips} == {"tuning"}
    for clip in clips:
        assert clip.strict == world.score(clip.task, clip.video.numpy()).strict


def test_only_runs_on_tuning_tasks_are_measured(tmp_path):
    write_tar(world.export("test", 1, 0), tmp_path / "test.tar")
    write_text(tmp_path / "runs.jsonl", '{"setting": "base", "seed": 0, "folder": "base"}\n')
    with pytest.raises(ValueError, match="split test, expected tuning"):
        list(measure.delivered(tmp_path))
