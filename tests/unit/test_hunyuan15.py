"""The HunyuanVideo-1.5 reasoner: what it listens to, what it refuses, where the LoRA sits."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmteach import models
from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
from vlmteach.builtin.wan import save_random_wan
from vlmteach.config import Config, DecoderConfig, FitConfig, ReasonerConfig, TeacherConfig
from vlmteach.decoders.full_hunyuan15 import HunyuanFullDecoder
from vlmteach.lora import InstanceLora
from vlmteach.methods.micro_fit import Makers, fit_of
from vlmteach.problem import pose, reset, sample
from vlmteach.queries import generic_queries
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.reward import TEACHER, Objective, TeacherReward, Term, Watched
from vlmteach.types import ClipSpec, Instance

CPU = torch.device("cpu")
CLIP = ClipSpec(frames=5, height=32, width=48, fps=24.0)
PROMPT = 'move the ball onto the sign "exit"'


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hunyuan15")
    save_random_hunyuan15(folder)
    return folder


def load(checkpoint: Path, **options) -> HunyuanReasoner:
    return HunyuanReasoner.load(checkpoint, **{"dtype": torch.float32, "device": CPU, **options})


@pytest.fixture(scope="module")
def reasoner(checkpoint: Path) -> HunyuanReasoner:
    return load(checkpoint)


def frame(value: int = 90) -> Image.Image:
    return Image.new("RGB", (CLIP.width, CLIP.height), (value, 255 - value, 30))


def latents(reasoner: HunyuanReasoner, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(reasoner.latent_shape(CLIP), generator=generator)


# Velocity and condition


def test_velocity_listens_to_prompt_quotes_frame_noise_and_level(reasoner):
    z = latents(reasoner)
    condition = reasoner.encode(PROMPT, frame(), CLIP)
    u = reasoner.velocity(z, 1.0, condition)
    assert 0.3 < u.std() < 3
    others = [
        reasoner.velocity(z, 1.0, reasoner.encode(PROMPT.replace("move", "turn"), frame(), CLIP)),
        reasoner.velocity(z, 1.0, reasoner.encode(PROMPT.replace("exit", "axes"), frame(), CLIP)),
        reasoner.velocity(z, 1.0, reasoner.encode(PROMPT, frame(200), CLIP)),
        reasoner.velocity(z, 1.0, reasoner.encode(PROMPT, None, CLIP)),
        reasoner.velocity(latents(reasoner, seed=1), 1.0, condition),
        reasoner.velocity(z, 0.5, condition),
    ]
    assert all((u - other).abs().max() > 0.01 for other in others)


def test_condition_holds_no_padding_and_marks_the_known_frame(reasoner):
    condition = reasoner.encode(PROMPT, frame(), CLIP)
    longer = reasoner.encode(PROMPT + " and back again", frame(), CLIP)
    assert condition.text.shape[1] < longer.text.shape[1] < 400
    assert condition.glyphs.shape[1] == longer.glyphs.shape[1] == len('Text "exit". ') + 1
    _, channels, t, h, w = reasoner.latent_shape(CLIP)
    assert condition.known.shape == (1, channels + 1, t, h, w)
    assert (condition.known[:, channels, 0] == 1).all()
    assert (condition.known[:, :, 1:] == 0).all()
    assert condition.known[:, :channels, 0].std() > 0.3

    text = reasoner.encode("no quoted words", None, CLIP)
    assert text.glyphs.shape[1] == text.image.shape[1] == 0
    assert (text.known == 0).all()


def test_encoders_stay_where_they_are_and_nothing_is_trainable(reasoner):
    parts = reasoner.parts
    for part in (parts.text_encoder, parts.glyph_encoder, parts.image_encoder, reasoner.network):
        assert not any(p.requires_grad for p in part.parameters())
        assert not part.training
    before = {n: p.clone() for n, p in parts.text_encoder.named_parameters()}
    state = torch.get_rng_state()
    reasoner.encode(PROMPT, frame(), CLIP)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) for n, p in parts.text_encoder.named_parameters())


def test_bfloat16_network_takes_and_gives_float32(checkpoint, reasoner):
    half = load(checkpoint, dtype=torch.bfloat16)
    z = latents(reasoner)
    u = half.velocity(z, 1.0, half.encode(PROMPT, frame(), CLIP))
    exact = reasoner.velocity(z, 1.0, reasoner.encode(PROMPT, frame(), CLIP))
    assert u.dtype == torch.float32
    assert half.vae.dtype == torch.float32
    assert torch.cosine_similarity(u.flatten(), exact.flatten(), dim=0) > 0.99


def test_checkpointing_gives_the_same_gradient(checkpoint):
    gradients = []
    for checkpointing in (False, True):
        reasoner = load(checkpoint, checkpointing=checkpointing)
        z = latents(reasoner).requires_grad_()
        u = reasoner.velocity(z, 1.0, reasoner.encode(PROMPT, frame(), CLIP))
        gradients.append(torch.autograd.grad(u.square().sum(), z)[0])
    assert torch.equal(*gradients)


def test_decoding_falls_back_to_tiles(checkpoint, monkeypatch, caplog):
    reasoner = load(checkpoint)
    decode, calls = reasoner.vae.decode, []

    def short_of_memory(z, **options):
        calls.append(reasoner.vae.use_tiling)
        if not reasoner.vae.use_tiling:
            raise torch.OutOfMemoryError
        return decode(z, **options)

    expected = reasoner.decode(latents(reasoner))
    monkeypatch.setattr(reasoner.vae, "decode", short_of_memory)
    assert torch.equal(reasoner.decode(latents(reasoner)), expected)  # as small as one tile
    assert calls == [False, True]
    assert not reasoner.vae.use_tiling
    assert "tiles" in caplog.text


# The LoRA


@pytest.mark.parametrize(
    "targets", ["attention", "self_attention", "cross_attention", "all_linear"]
)
def test_every_matrix_of_the_adapter_gets_a_gradient(checkpoint, targets):
    reasoner = load(checkpoint)
    lora = InstanceLora(reasoner.network, rank=2, alpha=2.0, targets=reasoner.lora_targets[targets])
    lora.reset(torch.Generator().manual_seed(0))
    lora.load(lora.flat + 0.05)
    reasoner.velocity(
        latents(reasoner), 1.0, reasoner.encode(PROMPT, frame(), CLIP)
    ).square().sum().backward()
    for slot, parameter in zip(lora.slots, lora.parameters, strict=True):
        assert parameter.grad is not None, slot.name
        assert parameter.grad.abs().max() > 0, slot.name


def test_targets_leave_out_what_the_model_throws_away(reasoner):
    names = [name for name, _ in reasoner.network.named_modules()]
    chosen = {n for n in names if re.fullmatch(reasoner.lora_targets["all_linear"], n)}
    assert len(chosen) == 12 + 8
    for layer in ("attn.add_q_proj", "attn.to_add_out", "ff_context.net.2"):
        assert f"transformer_blocks.0.{layer}" in chosen
        assert f"transformer_blocks.1.{layer}" not in chosen


# Refusals


def test_refusals_of_instances(reasoner):
    with pytest.raises(ValueError, match=r"height: got 40, expected a positive multiple of 16"):
        reasoner.latent_shape(replace(CLIP, height=40))
    with pytest.raises(ValueError, match=r"frames: got 6, expected 4 .*; the nearest are 5 and 9"):
        reasoner.encode(PROMPT, None, replace(CLIP, frames=6))
    with pytest.raises(ValueError, match=r"first_frame: got 10 x 20 .*; resize it first"):
        reasoner.encode(PROMPT, Image.new("RGB", (20, 10)), CLIP)


def _change(folder: Path, file: str, **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_refusals_of_checkpoints(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="could not be read"):
        load(tmp_path / "nothing")

    without = shutil.copytree(checkpoint, tmp_path / "text")
    _change(without, "model_index.json", image_encoder=[None, None], feature_extractor=[None, None])
    shutil.rmtree(without / "image_encoder")
    for accepts in ("image", "both"):
        with pytest.raises(ValueError, match=r"reasoner.accepts: got .* expected 'text'; set it"):
            load(without, accepts=accepts)
    assert load(without, accepts="text").encode(PROMPT, None, CLIP).image.shape[1] == 0

    changed = shutil.copytree(checkpoint, tmp_path / "changed")
    _change(changed, "transformer/config.json", in_channels=98)
    with pytest.raises(ValueError, match=r"in_channels.*98, expected 65"):
        load(changed)
    save_random_wan(tmp_path / "wan")
    with pytest.raises(ValueError, match=r"expected"):
        load(tmp_path / "wan")

    missing = shutil.copytree(checkpoint, tmp_path / "missing")
    from safetensors.torch import load_file, save_file

    file = missing / "text_encoder_2" / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="text_encoder_2: got 1 weights missing"):
        load(missing)


# The builders


CONFIG = Config(
    reasoner=ReasonerConfig(
        family="hunyuan15", checkpoint="builtin:random/hunyuan15", dtype="float32"
    ),
    decoder=DecoderConfig(checkpoint="builtin:random/taehv1_5.safetensors", dtype="float32"),
    teacher=TeacherConfig(family="internvl", checkpoint="builtin:random/internvl", dtype="float32"),
)


def test_the_builders_join_it_with_its_decoders_and_any_teacher():
    built = models.load(CONFIG, CPU)
    assert isinstance(built.reasoner, HunyuanReasoner)
    assert built.teacher.facts.family == "internvl"
    assert built.decoder.decode(latents(built.reasoner)).shape == (5, 3, 32, 48)
    full = models.load(replace(CONFIG, decoder=DecoderConfig(family="full")), CPU)
    assert isinstance(full.decoder, HunyuanFullDecoder)


@pytest.mark.parametrize("mode", ["first", "full"])
def test_a_micro_fit_learns_on_it_as_on_any_reasoner(mode):
    built = models.load(CONFIG, CPU)
    instance = Instance(key="one", prompt=PROMPT, first_frame=frame(), digest="")
    problem = pose(built, instance, CLIP, ladder=(1000.0, 875.0), frames=3, seed=0)
    config = Config(fit=FitConfig(gradient=mode))
    watched = Watched(
        key="one",
        prompt=PROMPT,
        first_frame=None,
        queries=generic_queries(1),
        times=problem.times,
        height=CLIP.height,
        width=CLIP.width,
        device=CPU,
        base=lambda: torch.empty(0),
    )
    objective = Objective([Term(TEACHER, TeacherReward(built.teacher), 1.0)], watched, 0.5)
    module = fit_of(built, problem, objective, config, Makers.of(config))
    reset(built, seed=0, key="one")
    before = module().total
    assert before.item() == module.loss_of_base()
    before.backward()
    step = torch.cat([p.grad.flatten() for p in built.lora.parameters if p.grad is not None])
    assert step.shape == built.lora.flat.shape
    built.lora.load(built.lora.flat - 1e-2 * step / step.norm())
    with torch.no_grad():
        assert module().total < before
    assert sample(built, problem).shape == (CLIP.frames, 3, CLIP.height, CLIP.width)


def test_the_builders_refuse_what_does_not_fit():
    wan = replace(CONFIG, decoder=DecoderConfig(dtype="float32"))
    with pytest.raises(ValueError, match=r"latent_channels 48, .* 32; .*taehv1_5"):
        models.load(wan, CPU)
    with_lora = replace(CONFIG.reasoner, distillation_lora="some.safetensors")
    with pytest.raises(ValueError, match=r"distillation_lora: got .* expected an existing"):
        models.load(replace(CONFIG, reasoner=with_lora), CPU)
