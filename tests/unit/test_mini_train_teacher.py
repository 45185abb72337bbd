"""The teacher's training: rows equal the real prompts, a few steps run, the folder loads."""

from __future__ import annotations

import argparse
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.mini.train.loop import train
from benchmarks.mini.train.teacher import hardening, slopes, tempering
from benchmarks.mini.train.teacher import network as teacher_network
from benchmarks.mini.train.teacher import training as teacher
from benchmarks.mini.train.teacher.attack import climbed, in_pixels
from benchmarks.mini.train.teacher.data import KINDS, examples
from benchmarks.mini.train.teacher.rows import TIMES, Writer
from benchmarks.mini.train.teacher.swaps import Swaps
from benchmarks.mini.train.teacher.tokens import Width, save_folder
from vlmteach.builtin.paths import SHIPPED
from vlmteach.mini.world import Execution, answers, families, make, perform
from vlmteach.mini.world.scoring import GOAL_POWER
from vlmteach.options import read_config
from vlmteach.queries import generic_queries, parse_queries
from vlmteach.teachers.qwen_vl import Qwen3VLTeacher

TINY = Width(
    hidden=32, layers=2, heads=2, inner=48, vision_hidden=16, vision_layers=1, vision_heads=1,
    vision_inner=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("mini") / "teacher"
    save_folder(where, TINY)
    weights = teacher_network.new_network(where, 3).state_dict()
    teacher.save_weights(weights, where, torch.float32)
    return where


@pytest.fixture(scope="module")
def loaded(folder) -> Qwen3VLTeacher:
    return Qwen3VLTeacher.load(
        folder, dtype=torch.float32, device="cpu", frame_pixels=1024,
        share_video=True,
    )  # fmt: skip


def test_the_batched_forward_is_the_teachers_own(folder, loaded):
    tasks = [make(family.name, "train", 5) for family in families()[:3]]
    videos = teacher.to_frames([perform(t, Execution(extent=0.6)) / np.float32(255) for t in tasks])
    writer = Writer(folder)
    rows = writer.questions([[query.text for query in task.queries] for task in tasks])
    logits, *_ = writer.read(writer.teacher.network, videos, rows)
    ours = logits.log_softmax(-1)[..., writer.yes]
    for task, video, row in zip(tasks, videos, ours, strict=True):
        prepared = loaded.prepare([query.text for query in task.queries], TIMES, 32, 32)
        theirs = loaded.log_p_yes(video, prepared)
        torch.testing.assert_close(row, theirs, rtol=1e-4, atol=1e-4)


def test_a_request_row_predicts_what_the_teacher_writes(folder, loaded):
    from PIL import Image

    task = make("reach", "train", 5)
    writer = Writer(folder)
    rows = writer.requests([task], [3])
    first = teacher.to_frames([task.first_frame[None] / np.float32(255)])
    logits, *_ = writer.read(writer.teacher.network, first, rows)
    start = int(rows.scored[0, 0]) + 1
    before = writer.tokenizer.decode(rows.ids[0, :start])
    assert before.endswith("assistant\n")
    request = before.split("<|vision_end|>")[1].split("<|im_end|>")[0]
    written = loaded.write(request, [Image.fromarray(task.first_frame)], 1)
    assert (
        written == writer.tokenizer.decode(logits[0, 0].argmax(), skip_special_tokens=True).strip()
    )


def test_the_reply_asked_for_is_accepted(folder):
    writer = Writer(folder)
    for family in families():
        task = make(family.name, "train", 1)
        rows = writer.requests([task], [3])
        reply = writer.tokenizer.decode(rows.targets[0], skip_special_tokens=True)
        assert parse_queries(reply, max_process=3) == task.queries


def test_swapped_rows_ask_for_what_the_task_says_or_for_a_word_to_be_copied(folder):
    writer = Writer(folder)
    swaps = Swaps(writer.tokenizer)
    task = make("paint", "train", 5)
    plain = writer.requests([task] * 40, [3] * 40)
    rows = swaps(plain, torch.Generator().manual_seed(0))
    again = swaps(plain, torch.Generator().manual_seed(0))
    assert torch.equal(rows.ids, again.ids)
    assert torch.equal(rows.targets, again.targets)
    start = int(plain.scored[0, 0]) + 1
    colour, shape = (writer.tokenizer.encode(f" {word}")[0] for word in task.cue)
    copied = misled = 0
    for ids, targets in zip(rows.ids, rows.targets, strict=True):
        for word in (colour, shape):
            asked = ids[:start][plain.ids[0, :start] == word]
            wanted = targets[plain.targets[0] == word]
            assert len(asked)
            assert (wanted == asked[0]).all()
            copied += int(asked[0] != word)
        misled += int(
            (ids[start:] != plain.ids[0, start:]).any() and (targets == plain.targets[0]).all()
        )
    assert 0 < copied < 40
    assert 0 < misled < 40
    named = torch.cat(swaps._kinds)
    changed = rows.targets != plain.targets
    assert not torch.isin(rows.targets[changed], named).any()  # no other colour, no other shape


def test_some_videos_are_asked_about_in_generic_words(folder):
    """Without it the ablation with generic queries would measure an untrained vocabulary."""
    stage = _stage(folder)
    task = make("paint", "train", 5)
    draw = torch.Generator().manual_seed(0)
    frames = teacher.to_frames([task.truth / np.float32(255)]).expand(200, -1, -1, -1, -1)
    shown, questions = stage._shown(frames, [task] * 200, draw)
    assert torch.equal(shown, frames)
    asked = [tuple(texts) for texts in questions]
    generic = tuple(query.text for query in generic_queries(3))
    assert set(asked) == {generic, tuple(query.text for query in task.queries)}
    assert 5 < asked.count(generic) < 40
    for text in generic:
        assert len(stage.writer.tokenizer.encode(text)) == 1


def test_an_untrained_teacher_is_undecided_between_tokens(folder, loaded):
    task = make("reach", "train", 5)
    prepared = loaded.prepare([query.text for query in task.queries], TIMES, 32, 32)
    frames = teacher.to_frames([task.truth / np.float32(255)])[0]
    assert loaded.log_p_yes(frames, prepared).min() > -20


def test_examples_are_labelled_by_the_rules_and_repeat():
    first, again = examples(3, 7, 12, easy=0.25), examples(3, 7, 12, easy=0.25)
    for one, other in zip(first, again, strict=True):
        assert one.task.key == other.task.key
        assert one.kind in KINDS
        np.testing.assert_array_equal(one.video, other.video)
        assert one.labels == answers(one.task, one.video)
        assert one.task.split == "train"
        assert one.video.min() >= 0
        assert one.video.max() <= 1
    assert {x.task.key for x in examples(3, 8, 12, easy=0.25)} != {x.task.key for x in first}


def test_climbing_raises_the_objective_and_spares_the_first_frame():
    frames = torch.rand(2, 9, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def log_yes(video):
        return -video[:, :, 0].mean((1, 2, 3))[:, None].expand(-1, 4)

    start, shown = in_pixels(
        frames, colour=torch.tensor([0.0, 0.2]), pixels=torch.zeros(2),
        draw=torch.Generator().manual_seed(1),
    )  # fmt: skip
    found = climbed(start, shown, log_yes, steps=3)
    torch.testing.assert_close(found[:, 0], frames[:, 0])
    torch.testing.assert_close(found[0], frames[0], atol=1e-4, rtol=0)
    assert log_yes(found)[1, 0] > log_yes(frames)[1, 0] + 0.1
    assert (found - frames).abs().max() <= 0.2 + 1e-4


def _stage(folder, steps=3):
    network = teacher_network.new_network(folder, 3)
    return teacher.TeacherStage(folder, network, seed=3, steps=steps, batch=4, attacked=2)


def test_fits_climb_the_averaged_teacher_with_all_of_its_weights(tmp_path, monkeypatch):
    """A teacher that lacks a part has no false yes to find: the fits would teach nothing."""
    folder = tmp_path / "teacher"
    save_folder(folder, TINY)
    teacher.save_weights(teacher_network.new_network(folder, 3).state_dict(), folder)
    stage = _stage(folder)
    draw = torch.Generator().manual_seed(1)
    for value in stage.average.values():
        value.add_(torch.randn(value.shape, generator=draw), alpha=0.05)
    met = []
    monkeypatch.setattr(teacher, "Climber", lambda *_: None)
    monkeypatch.setattr(
        teacher.FoundVideos,
        "collect",
        lambda self, climber, network, *_, **__: met.append(network) or {},
    )
    monkeypatch.setattr(teacher.FoundVideos, "example", lambda self, rng: None)
    stage._on_policy(examples(3, 7, 4, easy=0.25), tmp_path, {})
    climbed_one = dict(met[0].named_parameters())
    assert climbed_one.keys() == stage.average.keys()
    for name, value in stage.average.items():
        assert torch.equal(climbed_one[name], value.bfloat16().float())
        assert not climbed_one[name].requires_grad


def test_a_stern_stage_asks_for_a_power_of_the_labels(folder, monkeypatch):
    asked, learn = [], teacher.soft_loss

    def recorded(logits, labels, writer):
        asked.append(labels)
        return learn(logits, labels, writer)

    monkeypatch.setattr(teacher, "soft_loss", recorded)
    network = teacher_network.new_network(folder, 3)
    for stern in (1.0, 2.0):
        stage = teacher.TeacherStage(
            folder, network, seed=3, steps=20, begun=19, batch=4, attacked=0, stern=stern
        )
        stage.loss(stage.batch(19), torch.Generator().manual_seed(1))
    mild, strict = (labels[:, :4] for labels in asked)
    assert ((mild > 0.05) & (mild < 0.95)).any()
    torch.testing.assert_close(strict, mild**2)


def test_the_slopes_tell_apart_what_tempering_calls_the_same(folder):
    network = teacher_network.new_network(folder, 3)
    goals = torch.tensor([[0.45, 0.6]])  # where fits begin
    labels = goals ** (GOAL_POWER * tempering.STERN)

    def loss(lowest: float, log_yes: torch.Tensor) -> float:
        stage = teacher.TeacherStage(
            folder, network, seed=3, steps=20, batch=4, attacked=0, lowest=lowest
        )
        logits = torch.zeros(1, 2, stage.writer.yes + 2)  # of many words, whose "Yes" weighs p
        rest = logits.shape[-1] - 1
        logits[..., stage.writer.yes] = log_yes - torch.log1p(-log_yes.exp()) + math.log(rest)
        return stage._sloped(logits, labels).item()

    flat, rising = torch.full((1, 2), teacher.LOWEST), labels.log()
    assert rising[0, 1] - rising[0, 0] > 3
    assert loss(teacher.LOWEST, flat) < 1e-6 < 1 < loss(teacher.LOWEST, rising)
    assert loss(slopes.LOWEST, rising) < 1e-6 < 1 < loss(slopes.LOWEST, flat)


def test_training_in_pieces_is_training_in_one(tmp_path):
    for name in ("whole", "pieces"):
        save_folder(tmp_path / name / "teacher", TINY)
        network = teacher_network.new_network(tmp_path / name / "teacher", 3)
        teacher.save_weights(network.state_dict(), tmp_path / name / "teacher")
    whole = _stage(tmp_path / "whole" / "teacher")
    train(whole, tmp_path / "whole")
    first = _stage(tmp_path / "pieces" / "teacher")
    train(first, tmp_path / "pieces", minutes=0)
    assert first.done == 1
    second = _stage(tmp_path / "pieces" / "teacher")
    train(second, tmp_path / "pieces")
    assert second.done == 3
    for one, other in zip(whole.average.values(), second.average.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_commands_leave_a_folder_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "WIDTH", TINY)
    monkeypatch.setattr(teacher, "BATCH", 4)
    monkeypatch.setattr(teacher, "ATTACKED", 1)
    monkeypatch.setattr(hardening, "FITS", (1, 1))
    for name, stage in (
        ("wan", "wan"),
        ("taehv.safetensors", "taehv.safetensors"),
        ("wan/vae", "vae"),
    ):
        (tmp_path / stage).symlink_to(SHIPPED / name)
    words = argparse.Namespace(seed=1, out=tmp_path, steps=2, minutes=5.0, threads=1)
    for stage in (hardening, tempering, slopes):
        with pytest.raises(ValueError, match="train teacher --out"):
            stage.run(words)
    monkeypatch.setattr(teacher, "_ON_POLICY", 2)
    short = argparse.Namespace(**vars(words) | {"minutes": 0.0})
    teacher.run(short)
    with pytest.raises(
        ValueError, match=r"got .* with 1 of its 2 steps, expected the stage 'teach"
    ):
        hardening.run(words)
    teacher.run(words)
    first = load_file(tmp_path / "teacher" / "model.safetensors")
    assert not (tmp_path / "found").exists()
    monkeypatch.setattr(teacher, "_ON_POLICY", 0.45)
    hardening.run(words)
    second = load_file(tmp_path / "teacher" / "model.safetensors")
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert len(moved) > len(first) / 2
    one, other = (torch.cat([w[name].float().flatten() for name in first]) for w in (first, second))
    assert (one - other).norm() < 0.1 * one.norm()  # it goes on from the first stage's weights
    tempering.run(words)
    third = load_file(tmp_path / "teacher" / "model.safetensors")
    last = torch.cat([third[name].float().flatten() for name in first])
    assert 0 < (last - other).norm() < 0.1 * one.norm()
    slopes.run(words)
    fourth = load_file(tmp_path / "teacher" / "model.safetensors")
    end = torch.cat([fourth[name].float().flatten() for name in first])
    assert 0 < (end - last).norm() < 0.1 * one.norm()
    loaded = Qwen3VLTeacher.load(
        tmp_path / "teacher", dtype=torch.float32, device="cpu",
        frame_pixels=1024, share_video=True,
    )  # fmt: skip
    task = make("drop", "train", 2)
    prepared = loaded.prepare([task.queries[0].text], TIMES, 32, 32)
    frames = teacher.to_frames([task.truth / np.float32(255)])[0]
    assert loaded.log_p_yes(frames, prepared).isfinite().all()
    rounds = sorted(file.name for file in (tmp_path / "found").iterdir())
    assert rounds == [f"{step:08}.safetensors" for step in (2, 3, 4, 5, 6, 7)]
    config = read_config(["--config", str(tmp_path / "mini.yaml")])
    assert config.reasoner.checkpoint == str(tmp_path / "wan")
    assert config.teacher.checkpoint == str(tmp_path / "teacher")
    assert config.fit == read_config(["--config", "mini"]).fit
