"""Sampling with two experts equals diffusers' own Wan pipelines with a boundary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmteach import models
from vlmteach.builtin.taehv import save_random_taehv
from vlmteach.builtin.wan import save_random_wan, save_random_wan_a14b, save_random_wan_lora
from vlmteach.config import Config, DecoderConfig, FitConfig, ReasonerConfig, TeacherConfig
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.reasoners.wan_a14b import WanA14BReasoner, expert_of
from vlmteach.rollout import draw_noise, sample_latents
from vlmteach.types import ClipSpec

CLIP = ClipSpec(frames=5, height=32, width=48, fps=16.0)
PROMPT = "Move the ball to the right."
CPU = torch.device("cpu")
LADDER = (1000.0, 937.5, 833.3, 625.0)


@pytest.fixture(scope="module", params=["image", "text"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    save_random_wan_a14b(folder, image=kind == "image")
    return folder


@pytest.fixture(scope="module")
def picture(kind):
    values = torch.randint(0, 256, (4, 6, 3), generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray(values.to(torch.uint8).numpy())
    return picture.resize((CLIP.width, CLIP.height), 0) if kind == "image" else None


def load(checkpoint: Path, carrier: Any = "high_noise", **options) -> WanA14BReasoner:
    rung = {"high_noise": 0, "low_noise": 3}[carrier]
    reasoner = WanA14BReasoner.load(
        checkpoint,
        dtype=torch.float32,
        device=CPU,
        ladder=LADDER,
        rungs=range(rung, rung + 1),
        **options,
    )
    assert reasoner.carrier == carrier
    return reasoner


def posed(reasoner, picture):
    condition = reasoner.encode(PROMPT, picture, CLIP)
    shape = reasoner.latent_shape(CLIP)
    return condition, draw_noise(shape, len(LADDER), seed=0, key="parity/1", device=CPU)


def test_both_experts_sample_as_in_the_pipeline(run_pipeline, checkpoint, picture):
    theirs = None
    for carrier in ("high_noise", "low_noise"):
        reasoner = load(checkpoint, carrier)
        condition, noise = posed(reasoner, picture)
        ours = sample_latents(reasoner, condition, noise, LADDER)
        if theirs is None:
            theirs = run_pipeline(checkpoint, PROMPT, CLIP, picture, noise, LADDER, "latent")
        assert theirs.std() > 0.3  # a comparison of constants would prove nothing
        print(f"latents, {carrier}: {(ours - theirs).abs().max():.1e}")
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    pixels = reasoner.decode(ours)
    frames = run_pipeline(checkpoint, PROMPT, CLIP, picture, noise, LADDER, "pt")[0]
    torch.testing.assert_close(pixels, frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("carrier", "rungs"), [("high_noise", (0, 1)), ("low_noise", (2, 3))])
def test_the_adapter_acts_on_its_expert_alone(checkpoint, picture, carrier, rungs):
    reasoner = load(checkpoint, carrier)
    condition, noise = posed(reasoner, picture)

    def velocities():
        return [reasoner.velocity(noise.z1, t / 1000, condition) for t in LADDER]

    before = velocities()
    targets = reasoner.lora_targets["attention"]
    lora = InstanceLora(reasoner.network, rank=2, alpha=2.0, targets=targets)
    lora.reset(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(velocities(), before, strict=True))
    lora.load(lora.flat + 0.1)
    changed = [not torch.equal(a, b) for a, b in zip(velocities(), before, strict=True)]
    assert [rung for rung, differs in enumerate(changed) if differs] == list(rungs)


def test_distillation_loras_are_fused_into_both(checkpoint, picture, tmp_path):
    for seed, expert in enumerate(("high_noise", "low_noise")):
        save_random_wan_lora(tmp_path / f"{expert}_model.safetensors", checkpoint, seed=seed)
    plain, fused = load(checkpoint), load(checkpoint, distillation_lora=str(tmp_path))
    condition, noise = posed(plain, picture)
    for timestep in (1000.0, 625.0):
        one, two = (r.velocity(noise.z1, timestep / 1000, condition) for r in (plain, fused))
        assert (one - two).abs().max() > 0.01
    with pytest.raises(ValueError, match=r"distillation_lora: got .*high_noise_model"):
        load(checkpoint, distillation_lora=str(tmp_path / "nothing"))


def test_the_carrier_follows_the_gradient(checkpoint, tmp_path):
    save_random_taehv(tmp_path / "taew2_1.safetensors", variant="taew2_1")
    config = Config(
        reasoner=ReasonerConfig(
            family="wan_a14b", checkpoint=str(checkpoint), dtype="float32", ladder=LADDER
        ),
        decoder=DecoderConfig(checkpoint=str(tmp_path / "taew2_1.safetensors"), dtype="float32"),
        teacher=TeacherConfig(dtype="float32"),
    )
    for mode, carrier in (("first", "high_noise"), (1, "high_noise"), ("last", "low_noise")):
        fit = FitConfig(gradient=mode)  # type: ignore[arg-type]
        reasoner = models.load(replace(config, fit=fit), CPU).reasoner
        assert isinstance(reasoner, WanA14BReasoner)
        assert reasoner.carrier == carrier
    full = replace(config, fit=FitConfig(gradient="full"))
    with pytest.raises(ValueError, match=r"fit.gradient: got .*937.5, .*expected .*; take first"):
        models.load(full, CPU)
    assert expert_of(900.0, (1000.0, 950.0), range(2)) == "high_noise"
    first, second, last = (replace(config, fit=FitConfig(gradient=g)) for g in ("first", 1, "last"))
    assert models.are_shared(first, second)
    assert not models.are_shared(first, last)


def test_refusals(kind, checkpoint, tmp_path):
    other = {"image": "text", "text": "image"}[kind]
    with pytest.raises(ValueError, match=rf"accepts: got '{other}' .*expected '{kind}'"):
        load(checkpoint, accepts=other)
    with pytest.raises(ValueError, match=r"reasoner.family wan_a14b"):
        WanReasoner.load(checkpoint, dtype=torch.float32, device=CPU)
    save_random_wan(tmp_path)
    with pytest.raises(ValueError, match=r"boundary_ratio None, expected .*family wan for"):
        load(tmp_path)
    with pytest.raises(ValueError, match="could not be read"):
        load(tmp_path / "nothing")
