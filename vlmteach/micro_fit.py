"""The micro-fit: one instance as a LightningModule, one update as its `training_step`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from vlmteach import seeding
from vlmteach.frames import draw_shift, shifted, uniform_frames
from vlmteach.models import Models
from vlmteach.reasoners.base import Condition
from vlmteach.reward import instance_loss
from vlmteach.rollout import Noise, draw_noise, rollout, sample_latents
from vlmteach.strategies import InPlaceStrategy, accelerator_of, own_world
from vlmteach.types import ClipSpec, Instance, QuerySet, Reading, Role, StopReason

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True, slots=True)
class Problem:
    """One instance made ready for the models: all that stays fixed while the adapter learns."""

    clip: ClipSpec
    condition: Condition
    seed: int
    """The run's, or the instance's own."""
    key: str
    """The instance's."""
    noise: Noise
    """z1 and the re-noise draws, drawn once (Algorithm 1)."""
    ladder: tuple[float, ...]
    """Timesteps of 1000, descending."""
    frames: tuple[int, ...]
    """Indices of the K clip frames the teacher watches."""
    roles: tuple[Role, ...]
    questions: Any
    """The teacher's own preparation of the queries."""


@torch.no_grad()
def pose(
    models: Models,
    instance: Instance,
    clip: ClipSpec,
    queries: QuerySet | None,
    *,
    ladder: Sequence[float],
    frames: int,
    seed: int,
) -> Problem:
    """Encodes, draws and prepares everything about an instance that no update changes.

    Args:
        instance: its first frame is already H x W of `clip`.
        queries: what the teacher will be asked; None where it is not.
        ladder: the reasoner's sampling timesteps.
        frames: K.
        seed: the run's seed, or the instance's own.

    Raises:
        ValueError: for a clip or modality the reasoner cannot make.
    """
    shape = models.reasoner.latent_shape(clip)
    device = models.reasoner.device
    watched = uniform_frames(clip.frames, frames)
    asked = queries.queries if queries else ()
    return Problem(
        clip=clip,
        condition=models.reasoner.encode(instance.prompt, instance.first_frame, clip),
        seed=seed,
        key=instance.key,
        noise=draw_noise(shape, len(ladder), seed=seed, key=instance.key, device=device),
        ladder=tuple(ladder),
        frames=tuple(watched),
        roles=tuple(query.role for query in asked),
        questions=models.teacher.prepare(
            [query.text for query in asked],
            [index / clip.fps for index in watched],
            clip.height,
            clip.width,
        )
        if asked
        else None,
    )


class MicroFit(pl.LightningModule):
    """The updates on one instance (Algorithm 1).

    Callbacks see the loss in the stock hook `on_before_backward`, before its own update, and end
    the fit there with `stop`: the update of that step is then never computed. Without a gradient
    an optimiser leaves its parameters alone, bitwise.

    Args:
        models: frozen models and the LoRA, shared by all fits of the process; not registered.
        problem: the instance, from `pose`.
        stop: rung of the ladder whose clean-latent prediction the teacher watches.
        grad_from: first rung whose evaluation carries gradient.
        goal_weight: lambda of Eq. 5.
        shift: largest random shift of the watched frames, as a share of height and width.
        learning_rate: eta of Eq. 6.
        optimizer: a name of `OPTIMIZERS`; its state is fresh, as the module is.
    """

    def __init__(
        self,
        models: Models,
        problem: Problem,
        *,
        stop: int,
        grad_from: int,
        goal_weight: float,
        shift: float,
        learning_rate: float,
        optimizer: str,
        weight_decay: float,
    ) -> None:
        super().__init__()
        self.models = models
        self.problem = problem
        self.stop_rung = stop
        self.grad_from = grad_from
        self.goal_weight = goal_weight
        self.shift = shift
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.weight_decay = weight_decay
        # The same Parameter objects that live in the reasoner: this module's state is the LoRA.
        self.adapter = nn.ParameterList(models.lora.parameters)
        self.updates = 0
        self.reading: Reading | None = None
        self.stop_reason: StopReason | None = None

    def predict(self) -> Tensor:
        """The clean-latent prediction the teacher watches (Eq. 7), [1, C, t, h, w]."""
        problem = self.problem
        return rollout(
            self.models.reasoner,
            problem.condition,
            problem.noise,
            problem.ladder,
            stop=self.stop_rung,
            grad_from=self.grad_from,
        )

    def forward(self, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """log P("Yes") per query, [Q]: predict, decode the K frames, ask (Eq. 4).

        Args:
            shift: of the frames, down and right, as shares of height and width.
        """
        pixels = self.models.decoder.decode(self.predict(), self.problem.frames)
        return self.models.teacher.log_p_yes(shifted(pixels, *shift), self.problem.questions)

    @torch.no_grad()
    def loss_of_base(self) -> float:
        """The loss of Eq. 5 without the adapter and without a trace."""
        with self.models.lora.disabled():
            return instance_loss(self(), self.problem.roles, self.goal_weight).item()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One reading: the loss of Eq. 5 for the weights before this step's update."""
        seed, key = self.problem.seed, self.problem.key
        log_p_yes = self(draw_shift(self.shift, seed=seed, key=key, update=self.updates))
        loss = instance_loss(log_p_yes, self.problem.roles, self.goal_weight)
        p_yes = tuple(log_p_yes.detach().double().exp().tolist())
        self.reading = Reading(step=self.updates, loss=loss.item(), p_yes=p_yes)
        self.log_dict(self._curves(self.reading))
        return loss

    def _curves(self, reading: Reading) -> dict[str, float]:
        """The same few names for every instance, so that a dashboard can lay them over."""
        curves = {"loss": reading.loss}
        for role in ("goal", "process"):
            values = [
                p for p, r in zip(reading.p_yes, self.problem.roles, strict=True) if r == role
            ]
            if values:
                curves[f"p_yes/{role}"] = sum(values) / len(values)
        return curves

    def note_gradient_norm(self, norm: float) -> None:
        """Adds the gradient's L2 norm to this step's reading."""
        assert self.reading is not None
        self.reading = replace(self.reading, gradient_norm=norm)
        self.log("gradient_norm", norm)

    def stop(self, reason: StopReason) -> None:
        """Ends the fit, before this step's update when called in `on_before_backward`; the first
        reason stands."""
        self.stop_reason = self.stop_reason or reason
        self.trainer.should_stop = True

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if not self.trainer.should_stop:
            loss.backward(*args, **kwargs)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.trainer.should_stop:
            self.updates += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = OPTIMIZERS[self.optimizer_name]
        return kind(
            self.adapter.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )


def reset(models: Models, *, seed: int, key: str) -> None:
    """A fresh adapter for an instance: the same bits whatever was fitted before."""
    models.lora.reset(seeding.generator(seed, key, "lora"))


@torch.no_grad()
def sample(models: Models, problem: Problem) -> Tensor:
    """Full sampling from the same z1 with the adapter as it stands, through the standard VAE.

    Returns:
        Pixels [T, 3, H, W] in [0, 1].
    """
    z0 = sample_latents(models.reasoner, problem.condition, problem.noise, problem.ladder)
    return models.reasoner.decode(z0)


def fit(
    module: MicroFit, *, steps: int, callbacks: list[pl.Callback], logger: Logger | None
) -> None:
    """Runs a micro-fit through a Trainer of its own (a re-used one would count on).

    Args:
        steps: N. The Trainer allows one more batch: the reading after the last update.
        callbacks: from `vlmteach.callbacks`; one of them must end the fit after N updates.
    """
    accelerator, devices = accelerator_of(module.models.reasoner.device)
    with own_world(), quiet():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=InPlaceStrategy(module.models.reasoner.device),
            max_steps=steps + 1,
            max_epochs=-1,
            callbacks=callbacks,
            logger=logger or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, train_dataloaders=range(steps + 1))


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says at every construction of a Trainer, for the span of a `with`."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        log.setLevel(level)
