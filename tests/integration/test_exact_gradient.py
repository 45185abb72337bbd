"""The LoRA's gradient equals finite differences, in float64, through the whole path."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from vlmteach import micro_fit, seeding
from vlmteach.builtin.paths import builtin_path
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.instances import fit_first_frame
from vlmteach.lora import InstanceLora
from vlmteach.models import Models
from vlmteach.problem import pose
from vlmteach.queries import generic_queries
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.reward import TEACHER, Keep, Objective, TeacherReward, Term, Watched
from vlmteach.rollout import Noise, gradient_span
from vlmteach.teachers.qwen_vl import Qwen3VLTeacher
from vlmteach.types import ClipSpec, Instance

CLIP = ClipSpec(frames=9, height=64, width=64, fps=8.0)
LADDER = (1000.0, 750.0, 500.0, 250.0)
STEP = 1e-6


@pytest.fixture
def stay_float64(monkeypatch):
    """transformers and diffusers cast to float32 by name here and there; a float64 tensor stays."""
    to, as_float = torch.Tensor.to, torch.Tensor.float

    def lowers(tensor, arguments, options):
        return tensor.dtype == torch.float64 and torch.float32 in (
            *arguments,
            options.get("dtype"),
        )

    def staying_to(tensor, *arguments, **options):
        if lowers(tensor, arguments, options):
            return tensor
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", staying_to)
    monkeypatch.setattr(
        torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else as_float(x)
    )


@pytest.fixture(scope="module")
def models():
    exact = {"dtype": torch.float64, "device": torch.device("cpu")}
    reasoner = WanReasoner.load(
        builtin_path("random/wan"), accepts="both", distillation_lora=None, **exact
    )
    teacher = Qwen3VLTeacher.load(
        builtin_path("random/qwen3_vl"),
        frame_pixels=CLIP.height * CLIP.width,
        share_video=True,
        **exact,
    )
    decoder = TaehvDecoder.load(builtin_path("random/taehv.safetensors"), **exact)
    # Saturated pixels pass their gradient on purpose, which is then no derivative: keep off them.
    with torch.no_grad():
        last = decoder.network[-1]
        assert isinstance(last, torch.nn.Conv2d)
        assert last.bias is not None
        last.weight.mul_(0.1)
        last.bias.fill_(0.5)
    reasoner.network.double()  # loading keeps some layers in float32 by name
    targets = reasoner.lora_targets["attention"]
    lora = InstanceLora(reasoner.network, rank=2, alpha=4.0, targets=targets)
    return Models(reasoner=reasoner, decoder=decoder, teacher=teacher, lora=lora)


def posed(models, first_frame):
    instance = Instance(
        key="one", prompt="Move the ball to the right.", first_frame=first_frame, digest=""
    )
    if first_frame is not None:
        instance = replace(instance, first_frame=fit_first_frame(first_frame, CLIP))
    problem = pose(models, instance, CLIP, ladder=LADDER, frames=6, seed=0)
    noise = Noise(problem.noise.z1.double(), tuple(n.double() for n in problem.noise.renoise))
    return replace(problem, noise=noise)


def objective_of(models, problem, keep):
    """The teacher's reward, and `keep` beside it where it has a weight."""
    grey = torch.full((len(problem.frames), 3, CLIP.height, CLIP.width), 0.5, dtype=torch.float64)
    watched = Watched(
        key="one",
        prompt="",
        first_frame=None,
        queries=generic_queries(2),
        times=problem.times,
        height=CLIP.height,
        width=CLIP.width,
        device=torch.device("cpu"),
        base=lambda: grey,
    )
    terms = [Term(TEACHER, TeacherReward(models.teacher), 1.0)]
    return Objective([*terms, *([Term("keep", Keep(), keep)] if keep else [])], watched, 0.3)


@pytest.mark.parametrize(
    ("mode", "kind", "keep"),
    [
        *((mode, kind, 0.0) for mode in ("first", "last", "full", 1) for kind in ("image", "text")),
        ("first", "image", 3.0),
    ],
)
def test_gradient_equals_central_differences(mode, kind, keep, models, stay_float64):
    from PIL import Image

    problem = posed(models, Image.new("RGB", (64, 64), "orange") if kind == "image" else None)
    last_rung, grad_from = gradient_span(mode, len(LADDER))
    module = micro_fit.MicroFit(
        models,
        problem,
        objective_of(models, problem, keep),
        last_rung=last_rung,
        grad_from=grad_from,
        shift=0.0,
        optimizer=partial(torch.optim.SGD, lr=1.0),
    )
    draw = seeding.generator(0, "one", "test")
    models.lora.reset(draw)
    # With B = 0 the gradient of A is exactly zero: move off it, so that both are tested.
    start = models.lora.flat + 0.05 * torch.randn(models.lora.flat.shape, generator=draw)
    models.lora.load(start)

    with torch.no_grad():
        pixels = models.decoder.decode(module.predict())
    assert 0 < pixels.min() < pixels.max() < 1
    module().total.backward()
    gradient = torch.cat([p.grad.flatten() for p in models.lora.parameters])
    assert gradient.dtype == torch.float64

    def value(weights):
        models.lora.load(weights)
        return module().total.item()

    # A prefix without gradient still moves with the adapter: only a mode that differentiates all
    # it evaluates is the derivative of its own value.
    whole = grad_from == 0
    errors = []
    for _ in range(3):
        direction = torch.randn(start.shape, generator=draw, dtype=torch.float64)
        direction /= direction.norm()
        slope = (value(start + STEP * direction) - value(start - STEP * direction)) / (2 * STEP)
        analytic = (gradient @ direction).item()
        errors.append(abs(slope - analytic) / abs(slope))
    if whole:
        assert max(errors) < 1e-5
    else:
        assert max(errors) > 1e-4
