"""Stopping, keeping and guarding on scripted curves, through the real Trainer."""

import csv
import json
import math
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn

from vlmteach import micro_fit
from vlmteach.callbacks import Predictions, fit_callbacks
from vlmteach.config import FitConfig
from vlmteach.reward import TEACHER, Objective, Prepared, Term
from vlmteach.types import Reading


class FlatLora:
    """An adapter of one number; an update of SGD with rate 1 adds the gradient given."""

    def __init__(self):
        self.flat = torch.zeros(1)
        self.parameters = [nn.Parameter(self.flat)]
        self.parameters[0].data = self.flat

    def snapshot(self):
        return self.flat.clone()

    def load(self, weights):
        with torch.no_grad():
            self.flat.copy_(weights)


class Scripted:
    """A reward whose losses are a script; each update adds 1 to the adapter."""

    def __init__(self, lora, losses, gradients):
        self.lora = lora
        self.losses = [float(loss) for loss in losses]
        self.gradients = gradients or [1.0] * len(losses)
        self.seen = []

    def prepare(self, watched):
        return Prepared(roles=("goal",))

    def scores(self, frames, prepared):
        n = len(self.seen)
        weight = self.lora.parameters[0]
        self.seen.append(weight.item())
        nothing = weight - weight.detach()
        if nothing.requires_grad:
            nothing.register_hook(lambda gradient: gradient * self.gradients[n])
        # Value -loss with gradient +1: descent on the loss, -log p, adds to the weight.
        return -self.losses[n] + nothing


class Blind(micro_fit.MicroFit):
    """A micro-fit whose frames nobody needs."""

    def forward(self, shift=(0.0, 0.0)):
        return self.objective(torch.zeros(1, 3, 2, 2), shift)


def scripted(losses, gradients=None, **changes):
    """(micro-fit, its reward)."""
    lora = FlatLora()
    reasoner = SimpleNamespace(device=torch.device("cpu"), blocks=None)
    models = SimpleNamespace(lora=lora, reasoner=reasoner)
    reward = Scripted(lora, losses, gradients)
    module = Blind(
        models,  # pyright: ignore[reportArgumentType]
        SimpleNamespace(seed=0, key="one"),  # pyright: ignore[reportArgumentType]
        Objective([Term(TEACHER, reward, 1.0)], SimpleNamespace(), 0.5),  # pyright: ignore[reportArgumentType]
        **{
            "last_rung": 0,
            "grad_from": 0,
            "shift": 0.0,
            "optimizer": partial(torch.optim.SGD, lr=1.0),
            **changes,
        },
    )
    return module, reward


def run(
    losses, *, steps=None, threshold=0.0, keep: Literal["best", "last"] = "best", gradients=None
):
    module, reward = scripted(losses, gradients)
    steps = len(losses) - 1 if steps is None else steps
    told = []
    fit = FitConfig(steps=steps, threshold=threshold, keep=keep)
    callbacks = fit_callbacks(fit, told.append)
    nowhere = Path(os.devnull)
    micro_fit.fit(module, steps=steps, callbacks=callbacks.all, logger=None, folder=nowhere)
    best, curves = callbacks.best, callbacks.curves
    assert told == curves.readings
    object.__setattr__(module, "seen", reward.seen)
    return module, best, curves


def weight(module):
    return module.models.lora.flat.item()


def test_threshold_stops_before_the_update_of_that_step():
    module, best, curves = run([3, 2, 0.2, 1], threshold=0.22)
    assert module.stop_reason == "threshold"
    assert module.updates == 2
    assert module.seen == [0, 1, 2]
    assert weight(module) == 2
    assert [r.step for r in curves.readings] == [0, 1, 2]
    assert curves.readings[-1].gradient_norm is None
    assert (best.step, best.loss) == (2, pytest.approx(0.2))


def test_threshold_met_at_once_leaves_the_base_model():
    module, _, curves = run([0.1, 0.1], threshold=0.22)
    assert (module.updates, weight(module), len(curves.readings)) == (0, 0, 1)


def test_loss_equal_to_the_threshold_stops():
    assert run([1, 0.5, 0.1], threshold=0.5)[0].updates == 1


def test_cap_makes_n_updates_and_reads_the_last_weights():
    module, best, curves = run([5, 4, 3, 2], steps=3)
    assert module.stop_reason == "step_cap"
    assert module.updates == 3
    assert [r.loss for r in curves.readings] == [5, 4, 3, 2]
    assert (weight(module), best.step) == (3, 3)


def test_zero_steps_reads_once_and_changes_nothing():
    module, _, curves = run([5], steps=0)
    assert (module.updates, weight(module), len(curves.readings)) == (0, 0, 1)


def test_best_is_the_weights_that_were_read_not_those_after_the_update():
    module, best, _ = run([5, 1, 4, 3])
    assert (best.step, best.loss) == (1, 1)
    assert weight(module) == 1


def test_last_keeps_the_last_weights():
    module, best, _ = run([5, 1, 4, 3], keep="last")
    assert (weight(module), best.step, best.loss) == (3, 3, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_loss_ends_with_a_reason_and_the_best_weights(bad):
    module, best, curves = run([5, 4, bad, 1], keep="last")
    assert module.stop_reason == "non_finite_loss"
    assert (weight(module), best.step, module.updates) == (1, 1, 2)
    assert len(curves.readings) == 3


@pytest.mark.parametrize(
    ("gradient", "reason"),
    [(math.nan, "non_finite_gradient"), (math.inf, "non_finite_gradient"), (0.0, "zero_gradient")],
)
def test_bad_gradient_ends_before_the_update(gradient, reason):
    module, _, _ = run([5, 4, 3, 2], gradients=[1, 1, gradient, 1], keep="last")
    assert module.stop_reason == reason
    assert module.updates == 2
    assert weight(module) == 2


def test_non_finite_first_loss_keeps_the_fresh_adapter():
    module, best, _ = run([math.nan, 1])
    assert best.step is None
    assert weight(module) == 0


def test_gradient_norm_is_recorded():
    _, _, curves = run([5, 4, 3], gradients=[2.0, 3.0, 1.0])
    assert [r.gradient_norm for r in curves.readings] == [2, 3, None]


def test_loggers_are_told_each_reading_once_and_of_no_gradient_that_was_not_made(tmp_path):
    module, _ = scripted([5, 4, 3], gradients=[2.0, 3.0, 1.0])
    logger = CSVLogger(tmp_path, name="", version="")
    callbacks = fit_callbacks(FitConfig(steps=2, threshold=0.0), lambda reading: None)
    micro_fit.fit(module, steps=2, callbacks=callbacks.all, logger=logger, folder=tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in rows] == [5, 4, 3]
    assert [row["gradient_norm"] for row in rows] == ["2.0", "3.0", ""]


def test_a_schedule_that_waits_for_a_plateau_sees_each_loss():
    seen = []

    class Waits(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append(float(metrics))

    module, _ = scripted([5, 4, 3], scheduler=Waits)
    callbacks = fit_callbacks(FitConfig(steps=2, threshold=0.0), lambda reading: None)
    nowhere = Path(os.devnull)
    micro_fit.fit(module, steps=2, callbacks=callbacks.all, logger=None, folder=nowhere)
    assert seen[:2] == [5, 4]


def test_p_yes_is_the_exponential_of_the_log_probability():
    _, _, curves = run([math.log(4), 1])
    assert curves.readings[0].p_yes == pytest.approx((0.25,))


def test_a_fit_leaves_the_gradient_switch_and_the_rank_as_they_were(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 3)

    def fail(*_):
        raise RuntimeError("pretend")

    with torch.no_grad():
        assert run([2, 1])[0].updates == 1
        assert not torch.is_grad_enabled()
        monkeypatch.setattr(Scripted, "scores", fail)
        with pytest.raises(RuntimeError, match="pretend"):
            run([2, 1])
        assert not torch.is_grad_enabled()
    assert getattr(rank_zero_only, "rank") == 3  # noqa: B009


def kept_predictions(folder, readings):
    """The picture and its index of a fit of so many readings, whose frames are of one grey each."""
    module, _ = scripted([1.0] * readings)
    problem: Any = module.problem
    problem.frames = (0, 4, 8)
    callback = Predictions(folder)
    for step in range(readings):
        module.reading = Reading(step=step, loss=1.0, p_yes=())
        module.watched = torch.full((3, 3, 200, 100), step / 255)
        callback.on_train_batch_end(None, module, None, None, step)  # pyright: ignore
    callback.on_fit_end(None, module)  # pyright: ignore
    picture = torch.from_numpy(np.array(Image.open(folder / "predictions.jpg")))
    return picture, json.loads((folder / "predictions.json").read_text())


@pytest.mark.parametrize(
    ("readings", "steps"),
    [(1, [0]), (3, [0, 1, 2]), (64, [*range(64)]), (66, [*range(0, 65, 2), 65])],
)
def test_predictions_are_a_row_each_and_thinned_where_they_are_many(tmp_path, readings, steps):
    picture, index = kept_predictions(tmp_path, readings)
    assert index == {"steps": steps, "frames": [0, 4, 8], "height": 128, "width": 64}
    assert list(picture.shape) == [128 * len(steps), 3 * 64, 3]
    shown = picture.reshape(len(steps), 128, 192, 3).float().mean((1, 2, 3))
    assert (shown - torch.tensor(steps)).abs().max() <= 1  # JPEG, by one level at most


def test_predictions_are_kept_where_a_folder_is_named(tmp_path):
    fit = FitConfig(steps=1)
    kinds = [
        [type(each) for each in fit_callbacks(fit, print, (), at).all] for at in (None, tmp_path)
    ]
    assert [Predictions in kind for kind in kinds] == [False, True]


class EndsIt(pl.Callback):
    """Ends the fit after so many updates, in Lightning's way or in ours."""

    def __init__(self, after, own):
        self.after, self.own = after, own

    def on_train_batch_end(self, trainer, pl_module: Any, outputs, batch, batch_idx):
        if batch_idx + 1 >= self.after:
            if self.own:
                pl_module.stop("enough")
            trainer.should_stop = True


def ended(keep, own):
    module, _ = scripted([5, 4, 3, 2])
    fit = FitConfig(steps=3, threshold=0.0, keep=keep)
    callbacks = fit_callbacks(fit, lambda _: None, [lambda: EndsIt(2, own)])
    nowhere = Path(os.devnull)
    micro_fit.fit(module, steps=3, callbacks=callbacks.all, logger=None, folder=nowhere)
    return module, callbacks.best


@pytest.mark.parametrize("own", [True, False])
def test_a_callback_may_end_it_after_an_update_which_counts(own):
    module, best = ended("last", own)
    assert (module.updates, weight(module)) == (2, 2)
    assert (best.step, best.loss) == (2, None)  # of weights that were never read
    assert module.stop_reason == ("enough" if own else None)
    module, best = ended("best", own)
    assert (module.updates, weight(module), best.step, best.loss) == (2, 1, 1, 4)
