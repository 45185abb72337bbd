"""Fits in a batch are micro-fits: the same frames, the same answers, the same slopes."""

import contextlib

import numpy as np
import pytest
import torch

from benchmarks.mini.train.pipeline import LADDER
from benchmarks.mini.train.teacher import fits as teacher_fits
from benchmarks.mini.train.teacher.fits import RANK, Climber
from benchmarks.mini.train.teacher.rows import TIMES, Writer
from vlmteach.builtin.paths import SHIPPED
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.lora import InstanceLora
from vlmteach.mini.world import FPS, FRAMES, SIZE, make
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.reward import instance_loss
from vlmteach.rollout import Noise, rollout
from vlmteach.types import ClipSpec

TASKS = [make("paint", "train", 4), make("detour", "train", 5)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    out = tmp_path_factory.mktemp("recipe")
    for stage, shipped in (
        ("wan", "wan"),
        ("taehv.safetensors", "taehv.safetensors"),
        ("vae", "wan/vae"),
        ("teacher", "teacher"),
    ):
        (out / stage).symlink_to(SHIPPED / shipped)
    return out, Climber(out, Writer(out / "teacher"))


def one_fit(out, teacher, task, noise, adapter, stop):
    """Frames, answers, and the slope of the loss for each adapter matrix, by the real path."""
    from PIL import Image

    reasoner = WanReasoner.load(out / "wan", dtype=torch.float32, device=CPU)
    decoder = TaehvDecoder.load(out / "taehv.safetensors", dtype=torch.float32, device=CPU)
    lora = InstanceLora(
        reasoner.network, rank=RANK, alpha=RANK, targets=reasoner.lora_targets["all_linear"]
    )
    lora.load(torch.cat([adapter[slot.name].flatten() for slot in lora.slots]))
    clip = ClipSpec(frames=FRAMES, height=SIZE, width=SIZE, fps=FPS)
    condition = reasoner.encode(task.prompt, Image.fromarray(task.first_frame), clip)
    z0 = rollout(reasoner, condition, noise, LADDER, last_rung=stop, grad_from=0)
    frames = decoder.decode(z0, tuple(range(FRAMES)))
    prepared = teacher.prepare([query.text for query in task.queries], TIMES, SIZE, SIZE)
    log_yes = teacher.log_p_yes(frames, prepared)
    instance_loss(log_yes, [query.role for query in task.queries], 0.3).backward()
    slopes = {}
    for slot, parameter in zip(lora.slots, lora.parameters, strict=True):
        assert parameter.grad is not None
        slopes[slot.name] = parameter.grad
    return frames.detach(), log_yes.detach(), slopes


@pytest.mark.parametrize("rungs", [1, len(LADDER)])
def test_a_batch_of_fits_is_the_fits(parts, rungs, monkeypatch):
    out, climber = parts
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    draw = torch.Generator().manual_seed(0)
    trained = climber.adapters.reset(len(TASKS), draw)
    with torch.no_grad():
        for part in trained[1::2]:
            part.copy_(0.05 * torch.randn(part.shape, generator=draw))
    shape = (len(TASKS), climber.vae.config.z_dim, 3, 4, 4)
    noise = [torch.randn(shape, generator=draw) for _ in LADDER]
    first = climber._first([task.first_frame for task in TASKS])
    said = climber.velocity.prompts([task.prompt for task in TASKS])
    rows = climber.writer.questions([[query.text for query in task.queries] for task in TASKS])
    frames = climber.shown(climber.velocity.predict(noise[:rungs], first, said))
    told = climber._told(climber.writer.teacher.network, frames, rows)
    loss = -0.3 * told[:, 0] - 0.7 * told[:, 1:].mean(1)
    slopes = dict(
        zip(climber.adapters.pairs, _pairs(torch.autograd.grad(loss.sum(), trained)), strict=True)
    )
    pairs = climber.adapters.pairs
    climber.adapters.remove()
    for row, task in enumerate(TASKS):
        adapter = {}
        for name, (a, b) in pairs.items():
            adapter[f"{name}.lora_A.weight"] = a[row].detach().T
            adapter[f"{name}.lora_B.weight"] = b[row].detach().T
        given = Noise(noise[0][row : row + 1], tuple(n[row : row + 1] for n in noise[1:]))
        one = one_fit(out, climber.writer.teacher, task, given, adapter, rungs - 1)
        torch.testing.assert_close(frames[row].detach(), one[0], rtol=0, atol=2e-4)
        torch.testing.assert_close(told[row].detach(), one[1], rtol=1e-3, atol=1e-3)
        ours = torch.cat(
            [torch.cat([a[row].T.flatten(), b[row].T.flatten()]) for a, b in slopes.values()]
        )
        theirs = torch.cat(
            [torch.cat([one[2][f"{n}.lora_{m}.weight"].flatten() for m in "AB"]) for n in slopes]
        )
        assert torch.linalg.vector_norm(ours - theirs) < 5e-3 * torch.linalg.vector_norm(theirs)


def _pairs(flat):
    return list(zip(flat[::2], flat[1::2], strict=True))


def test_a_fit_depends_on_its_row_alone_and_leaves_the_base_model(parts, monkeypatch):
    _, climber = parts
    monkeypatch.setattr(teacher_fits, "STEPS", 2)
    network = climber.writer.teacher.network
    before = {name: value.clone() for name, value in network.named_parameters()}
    kept, told = climber.climb(network, TASKS, np.random.default_rng(1))
    assert kept.shape == (2, 2, FRAMES, 3, SIZE, SIZE)
    assert told.shape == (2, 4)
    assert not climber.adapters.pairs
    other, _ = climber.climb(network, [TASKS[0], TASKS[0]], np.random.default_rng(1))
    torch.testing.assert_close(kept[0], other[0], rtol=0, atol=0.02)
    assert (kept[1] - other[1]).abs().max() > 0.1
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
