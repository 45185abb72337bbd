"""The plan's counts: drawn-out stacks are exact, and the peak is that of real tensors."""

import json
import shutil
from dataclasses import replace
from typing import Literal

import pytest
import torch

from vlmteach import models
from vlmteach.builtin.paths import builtin_path
from vlmteach.config import ClipConfig, Config, FitConfig, LoraConfig, TeacherConfig
from vlmteach.methods.micro_fit import Makers, fit_of
from vlmteach.plan import counted as module
from vlmteach.plan.clips import clip_of_config
from vlmteach.plan.cost import measured
from vlmteach.plan.count import Live
from vlmteach.plan.counted import Counted, hollow_models
from vlmteach.problem import pose
from vlmteach.reward import TEACHER, Objective, TeacherReward, Term, Watched
from vlmteach.types import Instance, Query

CPU = torch.device("cpu")
DEPTH = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The random Wan, deeper and wider, without weights."""
    target = tmp_path_factory.mktemp("deep") / "wan"
    shutil.copytree(builtin_path("random/wan"), target)
    path = target / "transformer" / "config.json"
    grown = {"num_layers": DEPTH, "num_attention_heads": 8, "ffn_dim": 512}
    path.write_text(json.dumps(json.loads(path.read_text()) | grown))
    for weights in target.glob("transformer/*.safetensors"):
        weights.unlink()
    return target


def config_of(folder, mode, blocks=None, gradient: Literal["first", "last"] = "first"):
    config = Config(
        clip=ClipConfig(frames=9, height=64, width=96),
        teacher=TeacherConfig(frames=4, frame_pixels=64 * 96, dtype="float32"),
        lora=LoraConfig(blocks=blocks),
        fit=FitConfig(checkpointing=mode, gradient=gradient),
    )
    reasoner = replace(config.reasoner, checkpoint=str(folder), dtype="float32")
    return replace(config, reasoner=reasoner, decoder=replace(config.decoder, dtype="float32"))


@pytest.mark.parametrize(
    ("blocks", "gradient", "mode"), [(None, "first", "selective"), (4, "last", "none")]
)
def test_two_depths_say_what_the_whole_stack_does(folder, blocks, gradient, mode):
    config = config_of(folder, mode, blocks, gradient)
    built = hollow_models(config)
    counted = Counted(built, config, clip_of_config(config, built))
    update = counted.update(mode)
    rung = counted.sample_rung
    with torch.no_grad():
        whole, _ = measured(counted._velocity)
    assert rung == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counted, "_at_depth", lambda run, base, adapted: run(base))
        first = counted.update(mode).reasoner
    for ours, real in zip(update.reasoner, first, strict=True):
        assert ours == real


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_peak_is_that_of_real_tensors(folder, mode):
    config = config_of(folder, mode)
    built = hollow_models(config)
    planned = Counted(built, config, clip_of_config(config, built)).update(mode)
    with module.hollow(CPU):
        real = models.load(config, CPU)
    for name, tensor in real.reasoner.network.named_parameters():
        if "lora" not in name:
            torch.nn.init.normal_(tensor, std=0.02)
    update = update_of(real, config)
    update()  # what is constant is kept from here on
    for parameter in real.lora.parameters:
        parameter.grad = None
    with Live("cpu") as live:
        update()
    assert planned.peak == pytest.approx(live.peak, rel=0.1)


def update_of(real, config):
    clip = clip_of_config(config, real)
    instance = Instance(key="plan", prompt=module.PROMPT, first_frame=None, digest="")
    condition = models_condition(real, clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real.reasoner, "encode", lambda *_: condition, raising=False)
        ladder = config.reasoner.ladder
        problem = pose(real, instance, clip, ladder=ladder, frames=config.teacher.frames, seed=0)
    queries = (Query(module.QUERY, "goal"), *[Query(module.QUERY, "process")] * 3)
    watched = Watched(
        key="plan",
        prompt="",
        first_frame=None,
        queries=queries,
        times=problem.times,
        height=clip.height,
        width=clip.width,
        device=CPU,
        base=lambda: torch.zeros(()),
    )
    objective = Objective([Term(TEACHER, TeacherReward(real.teacher), 1.0)], watched, 0.5)
    fit = fit_of(real, problem, objective, config, Makers.of(config))
    return lambda: fit().total.backward()


def models_condition(real, clip):
    from vlmteach.reasoners.base import Condition

    shape = real.reasoner.latent_shape(clip)
    text = torch.zeros(1, 512, real.reasoner.network.config.text_dim)
    return Condition(text=text, first_latent=torch.zeros(1, shape[1], 1, *shape[3:]))
