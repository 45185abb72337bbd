"""The speaker's training: its tokens, its lessons as the teacher's own requests, a few steps."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.mini.train import speaker
from benchmarks.mini.train.data import any_task
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.speaking import language, lessons
from benchmarks.mini.train.speaking.clips import Clips, faults
from benchmarks.mini.train.speaking.folder import save_speaker
from benchmarks.mini.train.speaking.lessons import LESSONS
from benchmarks.mini.train.speaking.measure import measure, reply_to
from benchmarks.mini.train.speaking.rows import Dictation, load, logits_of
from benchmarks.mini.train.teacher.attack import Codec
from vlmteach.builtin.paths import SHIPPED
from vlmteach.methods.replies import parse_pick, parse_prompt, parse_text
from vlmteach.methods.vlm_solver import parse_plan, parse_verdict
from vlmteach.mini.world import Execution, details, families, make, perform, score
from vlmteach.queries import generic_queries, request
from vlmteach.types import Instance

TEACHER = SHIPPED / "teacher"
FEW = ({"improve": 1, "analyse": 1, "queries": 1}, {"plan": 1, "pick": 1, "answers": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speaker that has learnt nothing yet."""
    where = tmp_path_factory.mktemp("speaker") / "speaker"
    save_speaker(TEACHER, where)
    return where


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder up to the speaker, of the shipped models."""
    where = tmp_path_factory.mktemp("recipe")
    shutil.copytree(TEACHER, where / "teacher")
    shutil.copytree(SHIPPED / "wan" / "vae", where / "vae")
    return where


@pytest.fixture(scope="module")
def clips(out: Path) -> Clips:
    return Clips(Codec(speaker.autoencoder.load(out)), seed=3)


def test_the_teachers_tokens_and_texts_stay_what_they_were(folder: Path):
    old, new = (AutoTokenizer.from_pretrained(where) for where in (TEACHER, folder))
    assert {text: new.get_vocab()[text] for text in old.get_vocab()} == old.get_vocab()
    assert min(set(new.get_vocab().values()) - set(old.get_vocab().values())) == len(old)
    texts = [query.text for query in generic_queries(3)]
    for family in families():
        task = make(family.name, "train", 3)
        texts += [query.text for query in task.queries]
        instance = Instance(key=task.key, prompt=task.prompt, first_frame=None, digest="")
        texts += [request(instance, most) for most in (1, 2, 3)]
    for text in texts:
        assert new.encode(text) == old.encode(text), text


def test_requests_and_replies_are_few_tokens(folder: Path, clips: Clips):
    new = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    for kind, lesson_of in LESSONS.items():
        for lesson in lesson_of(rng, clips, 8):
            plain = lesson.request.partition("\nEarlier replies")[0]
            assert len(new.encode(plain)) <= 90, kind  # 24 the task's prompt, up to three times
            assert len(new.encode(lesson.reply)) <= 28, kind
            assert new.decode(new.encode(lesson.request)) == lesson.request


@pytest.mark.parametrize("kind", LESSONS)
def test_a_row_is_what_the_teacher_hands_to_its_network(kind: str, folder: Path, clips: Clips):
    some = LESSONS[kind](np.random.default_rng(5), clips, 2)
    dictation = Dictation(folder)
    spoken = dictation(some)
    ours = logits_of(dictation.network, spoken)
    teacher = load(folder)
    network, heard = teacher.network, []

    def first_token(_: object, named: dict[str, torch.Tensor], output: object) -> None:
        heard.append(output.logits[0, -1])  # pyright: ignore[reportAttributeAccessIssue]

    network.register_forward_hook(
        lambda module, given, named, output: first_token(module, named, output), with_kwargs=True
    )
    for row, lesson in enumerate(some):
        heard.clear()
        with torch.no_grad():
            teacher.write(lesson.request, lesson.images, 1)
        torch.testing.assert_close(ours[row, 0], heard[0], rtol=1e-3, atol=1e-3)
        reply = teacher.tokenizer.encode(lesson.reply + "<|im_end|>", add_special_tokens=False)
        assert spoken.rows.targets[row, : len(reply)].tolist() == reply


def test_every_reply_is_one_that_its_method_takes(clips: Clips):
    rng = np.random.default_rng(1)
    for lesson in [*lessons.rewriting(rng, clips, 6), *lessons.improving(rng, clips, 6)]:
        assert parse_prompt(lesson.reply)
    for lesson in [*lessons.analysing(rng, clips, 4), *lessons.advising(rng, clips, 6)]:
        assert parse_text(lesson.reply) == lesson.reply
    for lesson in lessons.picking(rng, clips, 4):
        assert 0 <= parse_pick(lesson.reply, len(lesson.images)) < len(lesson.images)
    for lesson in lessons.planning(rng, clips, 8):
        parse_plan(lesson.reply, may_end=lesson.reply == language.DONE)
    for lesson in lessons.verifying(rng, clips, 6):
        parse_verdict(lesson.reply)


def test_a_row_of_texts_leads_from_faults_to_the_prompt_that_asks_for_their_absence():
    task = make("odd", "train", 3)
    assert "which" in details(task)
    told = language.analysis(task, [{"extent", "duplicate"}, set()])
    colour = f"It is {task.cue[0]}."
    assert told == (
        f"{colour} First video: It stops short. It leaves a copy. Second video: All is right."
    )
    wanted = language.advised(task, ["extent"], {"extent", "duplicate"})
    assert wanted == ["which", "duplicate"]
    assert language.advice(task, wanted) == f"Add: {colour} Leave no copy."
    assert language.advised(task, [], set()) == []
    assert language.advice(task, []) == language.KEEP


def test_faults_are_those_that_the_rules_see():
    task = make("reach", "train", 3)

    def seen(**flaws: float) -> frozenset[str]:
        execution = Execution(**flaws)
        return faults(task, execution, score(task, perform(task, execution)))

    assert seen() == set()
    assert seen(extent=0.6) == {"extent"}
    assert seen(duplicate=0.8) == {"duplicate"}
    assert seen(extent=0.6, fade=0.8) == {"extent", "fade"}
    assert seen(duplicate=0.05, drift=0.3) == set()


def _stage(out: Path) -> speaker.SpeakerStage:
    save_speaker(out / "teacher", out / "speaker")
    codec = Codec(speaker.autoencoder.load(out))
    return speaker.SpeakerStage(
        out / "speaker", out / "teacher", Clips(codec, 3), seed=3, steps=2, counts=FEW
    )


def test_training_in_pieces_is_training_in_one(out: Path, tmp_path: Path):
    whole, pieces = _stage(out), _stage(out)
    train(whole, tmp_path / "whole")
    train(pieces, tmp_path / "pieces", minutes=0)
    assert pieces.done == 1
    pieces = _stage(out)
    train(pieces, tmp_path / "pieces")
    for one, other in zip(whole.average.values(), pieces.average.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_command_leaves_a_speaker_and_the_teacher_as_it_was(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speaker, "COUNTS", FEW)
    words = argparse.Namespace(seed=3, out=tmp_path, steps=1, minutes=5.0, threads=1)
    with pytest.raises(ValueError, match=r"got .* without teacher/, expected a finished teacher"):
        speaker.run(words)
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    speaker.run(words)
    for file in TEACHER.iterdir():
        assert (tmp_path / "teacher" / file.name).read_bytes() == file.read_bytes()
    task = any_task(np.random.default_rng(3))
    asked = lessons.rewrite_lesson("Write.", task)
    reply_to(load(tmp_path / "speaker"), asked, parse_text)


def test_the_shipped_speaker_writes_what_the_methods_can_use(out: Path):
    said = measure(
        load(SHIPPED / "speaker"),
        clips=Clips(Codec(speaker.autoencoder.load(out)), 4, "tuning"),
        n=4,
        seed=4,
    )
    assert all(kind["usable"] >= 0.75 for kind in said.values())
    assert said["rewrite"]["exact"] >= 0.5
    assert said["improve"]["exact"] >= 0.5
