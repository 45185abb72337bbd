from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.mini.train import autoencoder, loop
from benchmarks.mini.train.__main__ import STAGES, parse
from benchmarks.mini.train.autoencoder import Autoencoder, build, decode
from benchmarks.mini.train.data import any_execution, any_task, any_videos, draws
from benchmarks.mini.train.orthogonal import Orthogonal, orthogonalised
from vlmteach.mini.world import PERFECT, make


def stage(seed: int = 0, steps: int = 3) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(build(width=8), seed=seed, steps=steps, batch=1)


def test_a_training_in_pieces_equals_one_in_one_piece(tmp_path: Path):
    whole = stage()
    start = {key: value.clone() for key, value in whole.average.items()}
    assert loop.train(whole, tmp_path / "whole")
    pieces = whole
    for piece in range(3):
        pieces = stage()
        assert loop.train(pieces, tmp_path / "pieces", minutes=0) == (piece == 2)
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, pieces.network.state_dict()[key]), key
    assert all(torch.equal(whole.average[key], pieces.average[key]) for key in start)
    assert any(not torch.equal(whole.average[key], start[key]) for key in start)


def test_a_finished_training_is_not_repeated(tmp_path: Path):
    loop.train(stage(steps=1), tmp_path)
    again = stage(steps=1)
    assert loop.train(again, tmp_path)
    assert again.done == 1


def test_the_recipe_s_seed_and_the_step_decide_a_batch():
    assert torch.equal(any_videos(0, "a", 0, 2), any_videos(0, "a", 0, 2))
    for other in ((1, "a", 0), (0, "b", 0), (0, "a", 1)):
        assert not torch.equal(any_videos(0, "a", 0, 2), any_videos(*other, 2))


def test_videos_are_of_the_train_split_clean_and_flawed():
    rng = draws(0, "a", 0)
    tasks = [any_task(rng) for _ in range(60)]
    executions = [any_execution(rng, task) for task in tasks]
    assert {task.split for task in tasks} == {"train"}
    assert len({task.family for task in tasks}) > 8
    assert 10 < executions.count(PERFECT) < 40


def test_pixels_span_minus_one_to_one():
    videos = any_videos(0, "a", 0, 4)
    assert videos.shape == (4, 3, 9, 32, 32)
    assert -1 <= videos.min() < -0.7
    assert 0.8 < videos.max() <= 1


def test_decode_is_the_vae_s_own_without_its_clamp():
    vae = stage().network.eval()
    z = 30 * torch.randn(1, autoencoder.CHANNELS, 3, 4, 4)
    with torch.no_grad():
        ours, own = decode(vae, z), vae.decode(z).sample
    assert ours.abs().max() > 1
    assert torch.equal(ours.clamp(-1, 1), own)


def test_the_saved_vae_has_the_stride_of_a_surrogate_and_unit_latents(tmp_path: Path):
    vae = stage().network
    autoencoder.state_latents(vae, seed=0, videos=32)
    vae.save_pretrained(tmp_path / "vae")
    loaded = autoencoder.load(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["scale_factor_spatial"] == 8
    assert config["z_dim"] == autoencoder.CHANNELS
    z = loaded.encode(any_videos(0, "latents", 0, 32)).latent_dist.mode()
    assert z.shape[1:] == (autoencoder.CHANNELS, 3, 4, 4)
    unit = autoencoder.normalised(loaded, z)
    torch.testing.assert_close(unit.std((0, 2, 3, 4)), torch.ones(48), atol=0.02, rtol=0)
    torch.testing.assert_close(autoencoder.denormalised(loaded, unit), z)


def test_a_missing_autoencoder_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"mini\.train autoencoder --out"):
        autoencoder.load(tmp_path)


def test_psnr_of_a_grey_level():
    grey_level = torch.tensor(2 / 255)
    assert float(autoencoder.psnr(grey_level**2)) == pytest.approx(20 * math.log10(255), abs=1e-3)


def test_orthogonalised_singular_values():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for x in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalised(x))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_orthogonal_steps_as_adam_does_where_there_is_no_matrix():
    ours = torch.nn.Parameter(torch.arange(3.0))
    theirs = torch.nn.Parameter(torch.arange(3.0))
    first = Orthogonal([("gamma", ours)], rate=0.1)
    second = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for _ in range(3):
        for weight, optimizer in ((ours, first), (theirs, second)):
            weight.grad = weight.detach() ** 2 - 1
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_learning_rate_rises_and_falls():
    values = [loop.ramp(step, 100) for step in range(101)]
    peak = values.index(max(values))
    assert 3 <= peak <= 6
    assert max(values) == pytest.approx(1)
    assert values[-1] == pytest.approx(0)


def test_every_stage_stands_on_the_command_line():
    for name in STAGES:
        assert parse([name, "--out", "x"]).stage == name
    with pytest.raises(SystemExit):
        parse(["nonsense", "--out", "x"])


def test_the_world_s_colours_fit_the_clamp():
    truth = make("odd", "train", 0).truth
    assert truth.min() > 0
    assert truth.max() < 255
