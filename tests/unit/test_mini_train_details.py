"""The stage in which the reasoner learns to listen, and the words it learns for it."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mini.train import autoencoder, pipeline
from benchmarks.mini.train import details as stage
from benchmarks.mini.train.__main__ import main
from benchmarks.mini.train.flaws import flawed
from vlmteach.mini import world
from vlmteach.mini.world.types import FLAWS

AS_BEFORE = {
    "Fill the tank with pink water to the mark.": [105, 72, 70, 83, 53, 80, 73, 72, 41, 169, 1],
    "Turn the cyan bar flat.": [157, 72, 14, 7, 24, 169, 1],
}
"""Prompts with their ids in the reasoner from before the words of details."""


def some_tasks() -> list[world.Task]:
    return [world.make(f.name, "train", seed) for f in world.families() for seed in range(8)]


def older() -> pipeline.Velocity:
    """A tiny reasoner from before the words of details."""
    torch.manual_seed(1)
    tokenizer = pipeline.build_tokenizer()
    extra = 2 * len(world.detail_words())
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    scores = [(piece, -1.0) for piece, _ in pieces[: len(pieces) - extra]]
    tokenizer = type(tokenizer)(vocab=scores, extra_ids=0)
    transformer = pipeline.build_transformer(layers=1, width=32)
    return pipeline.Velocity(transformer, pipeline.build_text_encoder(len(scores)), tokenizer)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A recipe's folder with untrained tiny networks, the reasoner an older one."""
    torch.manual_seed(0)
    vae = autoencoder.build(width=8)
    autoencoder.state_latents(vae, seed=0, videos=32)
    vae.save_pretrained(tmp_path / "vae")
    pipeline.save_pipeline(older(), tmp_path / "vae", tmp_path / "flawed")
    return tmp_path


def test_a_bare_prompt_is_carried_out_as_before():
    bank = stage.DetailedPerformances(None, seed=0, stage="x", count=1)
    bare, tasks = 0, some_tasks() * 3
    for number, task in enumerate(tasks):
        execution, prompt = bank.performance(task, np.random.default_rng(number))
        if prompt == task.prompt:
            bare += 1
            assert execution == flawed(task, np.random.default_rng(number))
        assert bank.performance(task, np.random.default_rng(number)) == (execution, prompt)
    assert 0.3 < bare / len(tasks) < 0.5


def test_a_detail_mends_its_own_flaw_and_worsens_none():
    for task in some_tasks():
        before = flawed(task, np.random.default_rng(0))
        for said in ([name] for name in world.details(task)):
            after = stage.mended(before, task, said)
            world.perform(task, after)  # every flaw means something in the family
            better = {name for name in FLAWS if badness(after, name) < badness(before, name) - 1e-6}
            assert all(badness(after, name) <= badness(before, name) + 1e-9 for name in FLAWS)
            present = {name for name in FLAWS if badness(before, name) > 0}
            assert better == (present if said == ["which"] else present & set(said))


def test_more_details_never_mend_less_and_even_all_leave_something():
    for task in some_tasks():
        before = flawed(task, np.random.default_rng(0))
        known = list(world.details(task))
        steps = [stage.mended(before, task, known[:count]) for count in range(len(known) + 1)]
        for less, more in pairwise(steps):
            assert all(badness(more, name) <= badness(less, name) + 1e-9 for name in FLAWS)
        for name in FLAWS:
            assert (badness(steps[-1], name) > 0) == (badness(before, name) > 0)


def badness(execution: world.Execution, name: str) -> float:
    value = getattr(execution, name)
    return 1 - value if name == "extent" else value


def test_every_prompt_with_details_is_one_token_a_word():
    tokenizer = pipeline.build_tokenizer()
    for task in some_tasks():
        text = world.detailed(task, world.details(task))
        ids = tokenizer(text).input_ids
        assert len(ids) == len(text.replace(".", " .").split()) + 1  # and the end sign
        assert tokenizer.unk_token_id not in ids


def test_words_of_details_come_last_so_that_older_prompts_keep_their_ids():
    tokenizer, before = pipeline.build_tokenizer(), older().tokenizer
    extra = 2 * len(world.detail_words())
    assert len(tokenizer) == len(before) + extra
    last = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])[-extra:]
    assert {piece[1:].lower() for piece, _ in last} == set(world.detail_words())
    for prompt, ids in AS_BEFORE.items():
        assert tokenizer(prompt).input_ids == ids
    for task in some_tasks():
        assert tokenizer(task.prompt).input_ids == before(task.prompt).input_ids


def test_learning_words_changes_no_older_prompt():
    velocity = older()
    prompts = [task.prompt for task in some_tasks()[:5]]
    with torch.no_grad():
        before = velocity.prompts(prompts)[0]
        old = velocity.text_encoder.shared.weight.clone()
        velocity = pipeline.with_all_words(velocity, seed=0)
        assert torch.equal(velocity.prompts(prompts)[0], before)
    grown = velocity.text_encoder.shared.weight
    assert torch.equal(grown[: len(old)], old)
    fresh = grown[len(old) :]
    assert len(fresh) == 2 * len(world.detail_words())
    assert len(torch.unique(fresh, dim=0)) == len(fresh), "words can part"
    assert velocity.text_encoder.config.vocab_size == len(grown)
    again = pipeline.with_all_words(velocity, seed=0)  # nothing is lacking
    assert torch.equal(again.text_encoder.shared.weight, grown)


def test_new_words_begin_with_the_same_bits_each_time():
    grown = [pipeline.with_all_words(older(), seed=0).text_encoder.shared.weight for _ in range(5)]
    assert all(torch.equal(grown[0], other) for other in grown[1:])


def test_a_tokenizer_of_other_making_is_refused():
    velocity = older()
    pieces = list(velocity.tokenizer.get_vocab())
    swapped = [(piece, -1.0) for piece in [*pieces[:3], *reversed(pieces[3:])]]
    velocity.tokenizer = type(velocity.tokenizer)(vocab=swapped, extra_ids=0)
    with pytest.raises(ValueError, match="with other ids than today's"):
        pipeline.with_all_words(velocity, seed=0)


@torch.no_grad()
def test_a_bare_prompt_is_to_be_answered_as_before_the_stage(out: Path):
    velocity = pipeline.load_velocity(out / "flawed")
    bank = stage.DetailedPerformances(autoencoder.load(out), seed=0, stage="x", count=8)
    listening = stage.Listening(velocity, bank, name="x", seed=0, steps=1, rate=1e-3, batch=8)
    z0, prompts = bank.take(list(range(8)))
    bare = torch.tensor([prompt in bank.bare for prompt in prompts])
    assert 0 < bare.sum() < 8
    sigma = torch.linspace(1.0, 0.6, 8)
    z = torch.randn(z0.shape)
    before = velocity(z, sigma, z0[:, :, :1], velocity.prompts(prompts))
    velocity.transformer.proj_out.weight.mul_(2)  # what is trained is not what was before
    wanted = listening.wanted(z0, z, sigma, prompts)
    assert torch.equal(wanted[~bare], z0[~bare])
    predicted = z - sigma.view(-1, 1, 1, 1, 1) * before
    torch.testing.assert_close(wanted[bare], predicted[bare], atol=1e-4, rtol=1e-4)
    one = slice(int(bare.int().argmin()), int(bare.int().argmin()) + 1)  # a batch without any
    assert torch.equal(listening.wanted(z0[one], z[one], sigma[one], prompts[one]), z0[one])


def test_what_is_delivered_lies_between_the_flawed_and_the_trained(out: Path):
    velocity = pipeline.load_velocity(out / "flawed")
    bank = stage.DetailedPerformances(autoencoder.load(out), seed=0, stage="x", count=1)
    listening = stage.Listening(velocity, bank, name="x", seed=0, steps=1, rate=1e-3)
    name = "transformer.proj_out.bias"
    before = listening.average[name].clone()
    listening.average[name] += 1
    delivered = dict(listening.deliver().named_parameters())[name]
    torch.testing.assert_close(delivered, before + stage.GONE)


def test_the_stage_in_pieces_is_the_stage_in_one(out: Path):
    other = shutil.copytree(out, out / "other")
    assert main(["details", "--out", str(out), "--steps", "2"]) == 0
    for code in (3, 0):
        words = ["details", "--out", str(other), "--steps", "2", "--minutes", "0"]
        assert main(words) == code
    file = "text_encoder/model.safetensors"
    assert (out / "wan" / file).read_bytes() == (other / "wan" / file).read_bytes()
    velocity = pipeline.load_velocity(out / "wan")
    assert velocity.tokenizer.get_vocab() == pipeline.build_tokenizer().get_vocab()
    assert len(velocity.text_encoder.shared.weight) == len(velocity.tokenizer)
    assert main(["details", "--out", str(out), "--steps", "2"]) == 0  # delivers the same again
    assert (out / "wan" / file).read_bytes() == (other / "wan" / file).read_bytes()


def test_the_details_want_a_flawed_reasoner(tmp_path: Path, capsys):
    assert main(["details", "--out", str(tmp_path)]) == 2
    assert "mini.train flaws --out" in capsys.readouterr().err
