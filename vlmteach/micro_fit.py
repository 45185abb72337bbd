"""The micro-fit: one instance as a LightningModule, one update as its `training_step`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from vlmteach.frames import draw_shift
from vlmteach.models import Models
from vlmteach.prefix import prefixes_of
from vlmteach.problem import Problem, predict
from vlmteach.reward import Loss, Objective
from vlmteach.rollout import Prediction
from vlmteach.strategies import InPlaceStrategy, own_world, secluded_trainer
from vlmteach.types import Reading, StopReason


class MicroFit(pl.LightningModule):
    """The updates on one instance (Algorithm 1).

    Callbacks see the loss in the stock hook `on_before_backward`, before its own update, and end
    the fit there with `stop`: the update of that step is then never computed. Without a gradient
    an optimiser leaves its parameters alone, bitwise.

    Args:
        models: frozen models and the LoRA, shared by all fits of the process; not registered.
        problem: the instance, from `pose`.
        objective: the rewards, prepared for the instance.
        last_rung: rung of the ladder whose clean-latent prediction is watched.
        grad_from: first rung whose evaluation carries gradient.
        shift: largest random shift of the watched frames, as a share of height and width.
        optimizer: makes a torch optimiser, with its rate (eta of Eq. 6), from the adapter's
            parameters; its state is fresh, as the module is.
        scheduler: makes a torch schedule from that optimiser, stepped after each update.
    """

    def __init__(
        self,
        models: Models,
        problem: Problem,
        objective: Objective,
        *,
        last_rung: int,
        grad_from: int,
        shift: float,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        self.models = models
        self.problem = problem
        self.objective = objective
        self.last_rung = last_rung
        self.grad_from = grad_from
        self.shift = shift
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        # The same Parameter objects that live in the reasoner: this module's state is the LoRA.
        self.adapter = nn.ParameterList(models.lora.parameters)
        self.prefixes = prefixes_of(models.reasoner, models.lora, rungs=last_rung + 1)
        self.prediction: Prediction | None = None
        """The latest, of the weights as they were then."""
        self.of_base: Prediction | None = None
        """The base model's, once one was made: the first is, of a fresh adapter."""
        self.updates = 0
        self.reading: Reading | None = None
        self.watched: Tensor | None = None
        """The frames of the last reading as decoded, unshifted, [K, 3, H, W]; without gradient."""
        self.stop_reason: StopReason | str | None = None
        self._is_updated = False
        """Whether this step makes an update."""

    def predict(self) -> Tensor:
        """The clean-latent prediction that is watched (Eq. 7), [1, C, t, h, w]."""
        z0 = predict(
            self.models,
            self.problem,
            last_rung=self.last_rung,
            grad_from=self.grad_from,
            prefixes=self.prefixes,
        )
        self.prediction = Prediction(self.last_rung, z0.detach())
        if self.of_base is None and self.models.lora.is_base():
            self.of_base = self.prediction
        return z0

    def forward(self, shift: tuple[float, float] = (0.0, 0.0)) -> Loss:
        """Predicts, decodes the K frames, and has the rewards watch them.

        Args:
            shift: of the frames, down and right, as shares of height and width.
        """
        pixels = self.models.decoder.decode(self.predict(), self.problem.frames)
        self.watched = pixels.detach()
        return self.objective(pixels, shift)

    @torch.no_grad()
    def loss_of_base(self) -> float:
        """The loss without the adapter and without a trace."""
        with self.models.lora.disabled():
            return self().total.item()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One reading: the loss for the weights before this step's update."""
        seed, key = self.problem.seed, self.problem.key
        loss = self(draw_shift(self.shift, seed=seed, key=key, update=self.updates))
        p_yes = [] if loss.log_p_yes is None else [*loss.log_p_yes.detach().double().exp()]
        parts = [loss.total, *loss.shares.values(), *p_yes]
        total, *read = torch.stack([part.detach().double() for part in parts]).tolist()  # at once
        self.reading = Reading(
            step=self.updates,
            loss=total,
            p_yes=tuple(read[len(loss.shares) :]),
            shares=dict(zip(loss.shares, read, strict=False)),
        )
        # For schedules and callbacks of Lightning's that monitor a value.
        curves = {name: torch.tensor(value) for name, value in self._curves(self.reading).items()}
        self.trainer.callback_metrics.update(curves)
        return loss.total

    def _curves(self, reading: Reading) -> dict[str, float]:
        """The same few names for every instance, so that a dashboard can lay them over."""
        curves = {"loss": reading.loss}
        if len(reading.shares) > 1:
            curves |= {f"loss/{name}": share for name, share in reading.shares.items()}
        for role in ("goal", "process"):
            pairs = zip(reading.p_yes, self.objective.query_roles, strict=True)
            values = [p for p, r in pairs if r == role]
            if values:
                losses = [math.inf if p == 0 else -math.log(p) for p in values]  # Eq. 4
                curves[f"query_loss/{role}"] = sum(losses) / len(losses)
                curves[f"p_yes/{role}"] = sum(values) / len(values)
        if reading.gradient_norm is not None:
            curves["gradient_norm"] = reading.gradient_norm
        return curves

    def note_gradient_norm(self, norm: float) -> None:
        """Adds the gradient's L2 norm to this step's reading."""
        assert self.reading is not None
        self.reading = replace(self.reading, gradient_norm=norm)

    def let_go(self) -> None:
        """Drops what it keeps on the device: another fit takes its place."""
        self.prefixes, self.prediction, self.of_base, self.watched = [], None, None, None

    def stop(self, reason: StopReason | str) -> None:
        """Ends the fit, before this step's update when called in `on_before_backward`; the first
        reason stands."""
        self.stop_reason = self.stop_reason or reason
        self.trainer.should_stop = True

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The backward pass, left out where a callback has ended the fit."""
        if not self.trainer.should_stop:
            loss.backward(*args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Notes whether the step will change anything: without a gradient it does not."""
        self._is_updated = any(parameter.grad is not None for parameter in self.adapter)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tells the loggers the step's reading; counts the update, where one was made.

        Not by `self.log`, which repeats at the last reading the gradient of the step before it, and
        takes 2.5 % of a small model's fit.
        """
        assert self.reading is not None
        for logger in self.trainer.loggers:
            logger.log_metrics(self._curves(self.reading), step=self.reading.step)
        if self._is_updated:  # whatever a callback has asked for since
            self.updates += 1

    def configure_optimizers(self) -> Any:
        """The optimiser on the adapter's weights, its state fresh."""
        optimizer = self._make_optimizer(self.adapter.parameters())
        if self._make_scheduler is None:
            return optimizer
        # `monitor` is read only by schedules that wait for a plateau.
        stepped = {
            "scheduler": self._make_scheduler(optimizer),
            "interval": "step",
            "monitor": "loss",
        }
        return {"optimizer": optimizer, "lr_scheduler": stepped}


@torch.enable_grad()  # for its span alone: Lightning would leave it enabled
def fit(
    module: MicroFit,
    *,
    steps: int,
    callbacks: Sequence[pl.Callback],
    logger: Logger | Sequence[Logger] | None,
    folder: Path,
) -> None:
    """Runs a micro-fit through a Trainer of its own (a re-used one would count on).

    Args:
        steps: N. The Trainer allows one more batch: the reading after the last update.
        callbacks: from `vlmteach.callbacks`; one of them must end the fit after N updates.
        folder: the instance's; what a callback of the user's leaves through the Trainer lies in
            its `trainer`.
    """
    strategy = InPlaceStrategy(module.models.reasoner.device)
    with (
        own_world(),
        secluded_trainer(
            strategy,
            folder / "trainer",
            max_steps=steps + 1,
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=logger or False,
            log_every_n_steps=1,
        ) as trainer,
    ):
        trainer.fit(module, train_dataloaders=range(steps + 1))
