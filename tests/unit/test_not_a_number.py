"""Weights or results that are no numbers: refused or an error, never a clip that counts as done."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from vlmteach.builtin.paths import builtin_path
from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.weights import refuse_not_finite
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.methods import base, micro_fit
from vlmteach.problem import sample
from vlmteach.reasoners.one_network import OneNetwork
from vlmteach.reasoners.parts import load_part
from vlmteach.types import Query, QuerySet

CPU = torch.device("cpu")


def spoil(file: Path, change: Any) -> None:
    held = load_file(file)
    save_file(change(held), file)


def with_nan(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = sorted(n for n in held if n.startswith("decoder") or "block" in n)[0]
    held[name].view(-1)[-1] = float("nan")
    return held


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_bad_number_of_many_is_found(value, dtype):
    good = torch.full((300, 300), 6e4, dtype=dtype)  # its sum is beyond float16
    refuse_not_finite("here", [("good", good), ("ids", torch.ones(3, dtype=torch.long))])
    bad = good.clone()
    bad[7, 3] = value
    with pytest.raises(CheckpointError, match=r"here: got NaN or infinite weights \(bad\)"):
        refuse_not_finite("here", [("good", good), ("bad", bad)])


def test_a_surrogate_with_a_nan_is_refused(tmp_path):
    file = Path(shutil.copy(builtin_path("random/taehv.safetensors"), tmp_path))
    spoil(file, with_nan)
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights \(decoder\."):
        TaehvDecoder.load(file, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_nan, "NaN or infinite weights"),
        (lambda held: held | {"extra.weight": torch.ones(3)}, r"no place for \(extra\.weight"),
        (lambda held: {f"module.{name}": t for name, t in held.items()}, "weights missing"),
        (
            lambda held: {n: t[:-1].contiguous() for n, t in held.items()},
            "shape|not be loaded",
        ),
    ],
)
@pytest.mark.parametrize(
    ("model", "part", "dtype"),
    [(AutoencoderKLWan, "vae", "torch_dtype"), (UMT5EncoderModel, "text_encoder", "dtype")],
)
def test_every_tensor_of_a_part_is_used_and_a_number(tmp_path, model, part, dtype, change, told):
    shutil.copytree(builtin_path("random/wan") / part, tmp_path / part)
    (file,) = (tmp_path / part).glob("*.safetensors")
    spoil(file, change)
    with pytest.raises(CheckpointError, match=told) as refused:
        load_part(model, tmp_path, part, **{dtype: torch.float32})
    assert "\n" not in str(refused.value)


def _work(loss: float) -> Any:
    """Enough of a `Work` for one reading of a clip by a teacher that is no number."""
    teacher = SimpleNamespace(
        device=CPU,
        frames_of=lambda most, height, width: most,
        prepare=lambda *_: None,
        log_p_yes=lambda frames, prepared: torch.tensor([-loss]),
    )
    config = SimpleNamespace(
        teacher=SimpleNamespace(frames=2), fit=SimpleNamespace(goal_weight=0.5)
    )
    resources: Any = SimpleNamespace(config=config, models=SimpleNamespace(teacher=teacher))
    instance, clip = cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace(fps=8))
    return base.Work(resources, instance, Path(), clip, 0, print)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_reading_that_is_no_number_is_an_error(loss, capsys):
    queries = QuerySet((Query("Is it?", "goal"),), "generic")
    frames = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    assert _work(0.5).read(queries, frames, 0).loss == 0.5
    with pytest.raises(FloatingPointError, match="before any update"):
        _work(loss).read(queries, frames, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_clip_that_is_no_number_is_not_delivered(value, monkeypatch):
    pixels = torch.zeros(2, 3, 4, 4)
    models: Any = SimpleNamespace(reasoner=SimpleNamespace(decode=lambda z0: pixels))
    problem: Any = SimpleNamespace(condition=None, noise=None, ladder=())
    monkeypatch.setattr("vlmteach.problem.sample_latents", lambda *_, **__: None)
    assert sample(models, problem) is pixels
    pixels[1, 2, 3, 3] = value
    with pytest.raises(FloatingPointError, match="NaN or infinite pixels"):
        sample(models, problem)


@pytest.mark.parametrize(("noises", "losses"), [(1, [float("nan")]), (2, [0.5, float("nan")])])
def test_a_fit_that_begins_without_a_number_is_an_error(noises, losses, monkeypatch):
    method: Any = object.__new__(micro_fit.MicroFitMethod)
    fit = SimpleNamespace(noises=noises, steps=1)
    lora, run = SimpleNamespace(init="random"), SimpleNamespace(predictions=False)
    method.resources = SimpleNamespace(config=SimpleNamespace(fit=fit, lora=lora, run=run))
    method.makers = SimpleNamespace(callbacks=())
    work: Any = _work(0.5)
    told = iter(losses)
    module = SimpleNamespace(
        loss_of_base=lambda: next(told),
        objective=SimpleNamespace(query_roles=()),
        of_base=None,
    )
    readings = (SimpleNamespace(loss=losses[0], gradient_norm=None),)
    callbacks = SimpleNamespace(all=[], curves=SimpleNamespace(readings=readings))
    monkeypatch.setattr(method, "_module", lambda *_: module)
    monkeypatch.setattr(work, "candidate", lambda *_: None)
    monkeypatch.setattr(micro_fit, "fit_callbacks", lambda *_: callbacks)
    monkeypatch.setattr(micro_fit.micro_fit, "fit", lambda *_, **__: None)
    with pytest.raises(FloatingPointError, match="before any update"):
        method._fit(work, method._choose_noise(work, None, None)[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_clamp_makes_a_pixel_of_what_is_no_number(value):
    made = torch.zeros(1, 3, 2, 4, 4)
    made[0, 0, 0, 0, 0] = 3.0
    reasoner: Any = OneNetwork()
    reasoner.vae = SimpleNamespace(decode=lambda latent: SimpleNamespace(sample=made))
    assert reasoner._pixels_of(torch.zeros(1, 1, 1, 1, 1)).max() == 1
    made[0, 1, 1, 2, 2] = value
    pixels = reasoner._pixels_of(torch.zeros(1, 1, 1, 1, 1))
    assert pixels.isnan().sum() == 1
    assert pixels[1, 1, 2, 2].isnan()
