from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.mini.train import autoencoder, flaws, loop, measure, pipeline, reasoner
from vlmteach.mini.world import PERFECT, families, make, perform, vocabulary
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.rollout import Noise, sample_latents
from vlmteach.types import ClipSpec

CLIP = ClipSpec(frames=9, height=32, width=32, fps=8.0)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder with untrained tiny networks."""
    folder = tmp_path_factory.mktemp("recipe")
    torch.manual_seed(0)
    vae = autoencoder.build(width=8)
    autoencoder.state_latents(vae, seed=0, videos=32)
    vae.save_pretrained(folder / "vae")
    pipeline.save_pipeline(fresh(), folder / "vae", folder / "able")
    return folder


def fresh() -> pipeline.Velocity:
    torch.manual_seed(1)
    tokenizer = pipeline.build_tokenizer()
    transformer = pipeline.build_transformer(layers=1, width=32)
    return pipeline.Velocity(transformer, pipeline.build_text_encoder(len(tokenizer)), tokenizer)


def stage(out: Path, steps: int = 2) -> reasoner.FlowMatching:
    bank = reasoner.Performances(autoencoder.load(out), seed=0, stage="x", count=5)
    return reasoner.FlowMatching(fresh(), bank, name="x", seed=0, steps=steps, rate=1e-3, batch=2)


def test_every_word_of_the_world_is_one_token():
    tokenizer = pipeline.build_tokenizer()
    unknown = tokenizer.unk_token_id
    words = [word for word in vocabulary() if len(word) > 1]
    for spelt in (*words, *(word.capitalize() for word in words)):
        ids = tokenizer(f"the {spelt}", add_special_tokens=False).input_ids
        assert len(ids) == 2, spelt
        assert unknown not in ids
    assert unknown not in tokenizer("Zebras? (42)").input_ids


def test_prompts_are_one_token_a_word():
    tokenizer = pipeline.build_tokenizer()
    for family in families():
        prompt = make(family.name, "tuning", 0).prompt
        words = prompt.replace(".", " .").split()
        assert len(tokenizer(prompt).input_ids) == len(words) + 1  # and the end sign


def test_ladder_is_the_shifted_one():
    sigmas = [5 * s / (1 + 4 * s) for s in (1, 0.75, 0.5, 0.25)]
    np.testing.assert_allclose(np.array(pipeline.LADDER) / 1000, sigmas, atol=1e-4)


@torch.no_grad()
def test_velocity_and_sampling_are_the_loaded_reasoner_s(out: Path):
    loaded = WanReasoner.load(
        out / "able", dtype=torch.float32, device=torch.device("cpu"), accepts="image"
    )
    quick = pipeline.load_velocity(out / "able")
    tasks = [make("odd", "tuning", 0), make("match", "tuning", 0)]
    conditions = [
        loaded.encode(task.prompt, Image.fromarray(task.first_frame), CLIP) for task in tasks
    ]
    first = torch.cat([x for c in conditions if (x := c.first_latent) is not None])
    shape = (2, *loaded.latent_shape(CLIP)[1:])
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    said = quick.prompts([task.prompt for task in tasks])
    u = quick(z, torch.tensor([1.0, 0.625]), first, said)
    for index, sigma in enumerate((1.0, 0.625)):
        theirs = loaded.velocity(z[index : index + 1], sigma, conditions[index])
        torch.testing.assert_close(
            u[index : index + 1, :, 1:], theirs[:, :, 1:], atol=1e-4, rtol=1e-4
        )
    sampled = quick.sample([task.prompt for task in tasks], first, torch.Generator().manual_seed(5))
    draw = torch.Generator().manual_seed(5)
    drawn = [torch.randn(shape, generator=draw) for _ in pipeline.LADDER]
    for index, condition in enumerate(conditions):
        own = [x[index : index + 1] for x in drawn]
        noise = Noise(z1=own[0], renoise=tuple(own[1:]))
        theirs = sample_latents(loaded, condition, noise, pipeline.LADDER)
        torch.testing.assert_close(sampled[index : index + 1], theirs, atol=1e-3, rtol=1e-3)


def test_the_prompt_is_heard(out: Path):
    quick = pipeline.load_velocity(out / "able")
    z = torch.randn(1, autoencoder.CHANNELS, 3, 4, 4)
    with torch.no_grad():
        made = [
            quick(z, torch.ones(1), z[:, :, :1], quick.prompts([text]))
            for text in ("Paint the disc blue.", "Paint the disc red.")
        ]
    assert (made[0] - made[1]).abs().max() > 1e-4


def test_a_training_in_pieces_equals_one_in_one_piece(out: Path, tmp_path: Path):
    whole = stage(out)
    assert loop.train(whole, tmp_path / "whole")
    pieces = whole
    for _ in range(2):
        pieces = stage(out)
        loop.train(pieces, tmp_path / "pieces", minutes=0)
    for key, value in whole.average.items():
        torch.testing.assert_close(value, pieces.average[key], atol=0, rtol=0)


def test_the_loss_is_the_clean_latents_error(out: Path):
    trained = stage(out)
    latents, prompts = trained.batch(0)
    assert latents.shape == (2, autoencoder.CHANNELS, 3, 4, 4)

    class Right(torch.nn.Module):
        """Knows the answer: u = (z - z0) / sigma."""

        def prompts(self, texts):
            return torch.zeros(len(texts), 1, 1), torch.zeros(len(texts), 1, 1, 1)

        def forward(self, z, sigma, first, texts):
            assert torch.equal(first, torch.cat([latents, latents])[:, :, :1])
            z0 = torch.cat([latents, latents])
            return (z - z0) / sigma.view(-1, 1, 1, 1, 1)

    trained.network = Right()
    loss, facts = trained.loss((latents, prompts), torch.Generator().manual_seed(0))
    assert float(loss) < 1e-9
    assert float(facts["first"]) < 1e-9


def test_the_bank_gives_what_was_asked_for(out: Path):
    bank = stage(out).bank
    first, prompts = bank.take([3, 1, 3])
    again, _ = bank.take([1])
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], again[0])
    assert prompts[0] == prompts[2]


def test_flaws_are_fixed_by_the_cue_and_leave_some_whole():
    rng = np.random.default_rng(0)
    seen: dict[tuple[str, ...], set[tuple[float, ...]]] = {}
    for family in families():
        for seed in range(12):
            task = make(family.name, "train", seed)
            made = [flaws.flawed(task, rng) for _ in range(3)]
            perform(task, made[0])  # every flaw means something in the family
            for execution in made:
                wanted = 1 if task.cue in flaws.COMPLETED else flaws.EXTENT[task.cue[0]]
                assert execution.extent == pytest.approx(wanted, abs=0.031)
                known = (execution.drift, execution.duplicate, execution.fade, execution.disturb)
                seen.setdefault((family.name, task.cue[1]), set()).add(known)
    assert all(len(kinds) == 1 for kinds in seen.values())
    faulty = [next(iter(kinds)) != (0, 0, 0, 0) for kinds in seen.values()]
    assert 0.4 < np.mean(faulty) < 0.8


def test_flawed_performances_differ_from_perfect_ones(out: Path):
    vae = autoencoder.load(out)
    perfect = reasoner.Performances(vae, seed=0, stage="x", count=9)
    flawed = flaws.FlawedPerformances(vae, seed=0, stage="x", count=9)
    task = make("reach", "train", 1)
    assert perfect.performance(task, np.random.default_rng(0)) == (PERFECT, task.prompt)
    assert not torch.equal(perfect.take(list(range(9)))[0], flawed.take(list(range(9)))[0])


def test_measuring_reads_a_folder(out: Path):
    tasks = measure.tuning_tasks(13)
    assert {task.split for task in tasks} == {"tuning"}
    assert len({task.family for task in tasks}) == 13
    facts = measure.of_reasoner(out / "able", tasks[:2], noises=2)
    assert 0 <= facts["overall"] <= facts["best_overall"] <= 1
    assert len(facts["families"]) == 2


def test_the_flaws_want_an_able_reasoner(tmp_path: Path, capsys):
    from benchmarks.mini.train.__main__ import main

    assert main(["flaws", "--out", str(tmp_path)]) == 2
    assert "mini.train reasoner --out" in capsys.readouterr().err
