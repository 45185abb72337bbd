"""The classifier's training: labels by the rules, banks that nest, pieces that equal one piece."""

import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.mini.classifier import ClipClassifier, load
from benchmarks.mini.train import classifier as stage
from benchmarks.mini.train.clips_needed import on_new_tasks
from benchmarks.mini.train.loop import train
from vlmteach.builtin.paths import SHIPPED
from vlmteach.mini.world import FRAMES, SIZE, families, make, score

FOUND = ("mix", 7)
"""Family and seed of the task whose true video "was found"."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A folder with an autoencoder and one round of found videos."""
    out = tmp_path_factory.mktemp("recipe")
    (out / "vae").symlink_to(SHIPPED / "wan" / "vae")
    (out / "found").mkdir()
    truth = torch.from_numpy(make(FOUND[0], "train", FOUND[1]).truth)
    place = [family.name for family in families()].index(FOUND[0])
    save_file(
        {
            "videos": truth.expand(1, 2, -1, -1, -1, -1).contiguous(),
            "places": torch.tensor([(place, FOUND[1])]),
            "fooled": torch.tensor([False]),
        },
        out / "found" / "00000000.safetensors",
    )
    return out


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stage, "BATCH", 4)
    monkeypatch.setattr(stage, "CLIPS", 6)


def same(one, other):
    return (
        np.array_equal(one.clip, other.clip)
        and np.array_equal(one.first, other.first)
        and (one.prompt, one.questions, one.yes) == (other.prompt, other.questions, other.yes)
    )


def test_a_label_is_yes_from_where_strict_success_begins():
    bank = stage.LabelledClips(seed=2, count=60)
    passed = []
    for number in range(60):
        rng = stage.draws(2, "classifier/clip", number)
        task = bank._drawn(rng).task
        scored, one = score(task, bank[number].clip), bank[number]
        assert one.questions == tuple(query.text for query in task.queries)
        assert all(one.yes) == scored.strict
        passed.append(scored.strict)
    assert 5 < sum(passed) < 40


def test_a_clip_is_the_same_in_a_larger_bank_and_in_any_order(recipe):
    few = stage.bank_of(recipe, seed=1, count=4)
    many = stage.bank_of(recipe, seed=1, count=100)
    for number in (3, 0, 2, 1):
        assert same(few[number], many[number])
    assert not same(few[0], stage.bank_of(recipe, seed=2, count=4)[0])


def test_every_other_clip_was_found_and_of_the_others_some_are_decoded(recipe):
    bank = stage.bank_of(recipe, seed=1, count=24)
    prompt = make(FOUND[0], "train", FOUND[1]).prompt
    assert all(bank[number].prompt == prompt and all(bank[number].yes) for number in (1, 3, 5))
    plain = stage.LabelledClips(seed=1, count=24)
    alike = [same(bank[number], plain[number]) for number in range(0, 24, 2)]
    assert 2 < sum(alike) < 10


def test_in_pieces_it_is_the_same(recipe, tmp_path, small):
    def run(out, minutes):
        (out / "vae").symlink_to(recipe / "vae")
        (out / "found").symlink_to(recipe / "found")
        words = argparse.Namespace(out=out, seed=1, steps=3, minutes=minutes)
        for _ in range(3):  # a step, then the time is up
            stage.run(words)
        return load_file(out / stage.WEIGHTS)

    for name in ("one", "pieces"):
        (tmp_path / name).mkdir()
    whole, pieces = run(tmp_path / "one", 60), run(tmp_path / "pieces", 0)
    assert whole.keys() == pieces.keys()
    for name, value in whole.items():
        assert value.dtype == torch.float16
        assert torch.equal(value, pieces[name]), name
    assert load(tmp_path / "one" / stage.WEIGHTS).answer[0].weight.dtype == torch.float32


def test_it_learns_a_handful_of_clips(small, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "BATCH", 12)
    bank = stage.LabelledClips(seed=4, count=12)
    training = stage.Classifying(bank, seed=0, steps=60)
    before = on_new_tasks(training.network, bank)
    train(training, tmp_path)
    training.deliver()
    after = on_new_tasks(training.network, bank)
    assert after["answers"] > before["answers"] + 0.1
    assert after["answers"] > 0.9


def test_a_recipe_without_found_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without found/, expected the videos"):
        stage.bank_of(tmp_path, seed=1, count=4)


def test_what_is_told_of_new_tasks():
    bank = stage.LabelledClips(seed=2, count=70)
    classifier = ClipClassifier()
    last = classifier.answer[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1)  # yes to everything
    yes = np.array([bank[number].yes for number in range(70)])
    told = on_new_tasks(classifier, bank)
    assert told["answers"] == pytest.approx(yes.mean())
    assert told["accuracy"] == pytest.approx(yes.all(1).mean())
    assert told["false yes"] == pytest.approx(1 - yes.all(1).mean())
    assert told["false no"] == 0


def test_a_shift_moves_clip_and_first_frame_alike():
    bank = stage.LabelledClips(seed=2, count=2)
    seen = {}

    class Eye(ClipClassifier):
        def forward(self, clips, first, prompts, questions):
            seen[len(seen)] = torch.cat([clips, first[:, None]], 1)
            return torch.zeros(questions.shape[:2])

    stage.answered(Eye(), [bank[0], bank[1]])
    stage.answered(Eye(), [bank[0], bank[1]], [[1, 1], [2, 0]])
    plain, moved = seen[0], seen[1]
    assert plain.shape == (2, FRAMES + 1, 3, SIZE, SIZE)
    assert torch.equal(plain[0], moved[0])
    assert torch.equal(plain[1, ..., 1:, :-1], moved[1, ..., :-1, 1:])
