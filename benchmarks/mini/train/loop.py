"""What the stages share: a Lightning training that can be cut off anywhere and goes on exactly.

Batch n and its noise are functions of (seed, stage, n), and the state after it (weights, averaged
weights, the optimiser's moments) is one safetensors file, so a training in pieces equals one in one
piece.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.mini.train.orthogonal import Orthogonal
from vlmteach.seeding import generator

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Stage(pl.LightningModule):
    """One training: a network, a batch per step and a loss.

    Args:
        network: what is trained; `loss` uses it.
        name: of the stage; part of the seeds and of the file names.
        seed: of the recipe.
        steps: optimiser steps in all, over which the learning rate rises and falls again.
        rate: highest learning rate of `Orthogonal`.
        averaging: decay per step of the averaged weights, which are those delivered.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        seed: int,
        steps: int,
        rate: float,
        averaging: float = 0.995,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.name = name
        self.seed = seed
        self.steps = steps
        self.rate = rate
        self.averaging = averaging
        self.done = 0
        self.average = {key: value.detach().clone() for key, value in self._weights()}

    def batch(self, step: int) -> Any:
        """The data of a step."""
        raise NotImplementedError

    def loss(self, batch: Any, draw: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss, and what is logged beside it."""
        raise NotImplementedError

    def _weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((key, value) for key, value in self.network.named_parameters())

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The loss of one batch, its noise drawn from (seed, stage, step)."""
        loss, facts = self.loss(batch, generator(self.seed, f"{self.name}/{self.done}", "noise"))
        self.log_dict({"loss": loss, **facts})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimiser on the stage's weights."""
        return Orthogonal(self._weights(), rate=self.rate)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips the gradient's norm to 1 and sets the step's learning rate."""
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = self.rate * ramp(self.done, self.steps)

    def advance(self) -> None:
        """Counts a step and takes the new weights into the average."""
        self.done += 1
        # A short memory at the start, when the weights still run away from their initial values.
        decay = min(self.averaging, (1 + self.done) / (10 + self.done))
        for key, value in self._weights():
            self.average[key].lerp_(value.data, 1 - decay)

    def deliver(self) -> nn.Module:
        """The network with its averaged weights, in eval mode."""
        for key, value in self._weights():
            value.data = self.average[key].contiguous()
        return self.network.eval()

    def save(self, path: Path) -> None:
        """Writes the whole state, by atomic rename."""
        moments: dict[str, Tensor] = {}
        state = self.trainer.optimizers[0].state
        for key, value in self._weights():
            if value in state:
                moments |= {f"{name}.{key}": state[value][name] for name in _MOMENTS}
        tensors = {f"weight.{key}": value.data for key, value in self._weights()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()} | moments
        tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        counts = {"done": torch.tensor(self.done), "steps": torch.tensor(self.steps)}
        save_file(tensors | counts, fresh)
        fresh.rename(path)

    def restore(self, path: Path) -> dict[str, Tensor]:
        """Takes up the weights of a state; returns it, for the optimiser's share."""
        state = load_file(path)
        self.done = int(state["done"])
        with torch.no_grad():
            for key, value in self._weights():
                value.copy_(state[f"weight.{key}"])
                self.average[key].copy_(state[f"average.{key}"])
        return state


class _Steps(IterableDataset):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __iter__(self) -> Iterator[Any]:
        return (self.stage.batch(step) for step in range(self.stage.done, self.stage.steps))


class _Keeper(pl.Callback):
    """Puts the optimiser back, reports, saves now and then, and stops when the time is up."""

    def __init__(self, path: Path, state: dict[str, Tensor], minutes: float, every: int) -> None:
        self.path = path
        self.state = state
        self.minutes = minutes
        self.every = every
        self.start = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Stage)
        optimizer = trainer.optimizers[0]
        for key, value in pl_module._weights():
            if f"exp_avg.{key}" in self.state:
                moments = {name: self.state[f"{name}.{key}"] for name in _MOMENTS}
                step = torch.tensor(float(pl_module.done))
                optimizer.state[value] = {"step": step, **moments}

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.advance()
        minutes = (time.monotonic() - self.start) / 60
        if minutes >= self.minutes:
            trainer.should_stop = True
        last = trainer.should_stop or pl_module.done >= pl_module.steps
        if pl_module.done % self.every == 0 or last:
            facts = {key: f"{value:.4g}" for key, value in trainer.callback_metrics.items()}
            words = "  ".join(f"{key} {value}" for key, value in facts.items())
            print(f"{pl_module.name} {pl_module.done}/{pl_module.steps}  {words}"
                  f"  {minutes:.1f} min", flush=True)  # fmt: skip
        if pl_module.done % (10 * self.every) == 0 or last:
            pl_module.save(self.path)


def ramp(step: int, steps: int) -> float:
    """Learning rate at a step as a share of the highest: up over 4 % of the steps, then a cosine
    down to 0."""
    warm = max(0.04 * steps, 1)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def train(stage: Stage, out: Path, *, minutes: float = math.inf, every: int = 50) -> bool:
    """Trains until the steps or the minutes are over; goes on from the state in `out`.

    Args:
        stage: its network is trained in place.
        out: folder of the recipe; the state is `state/<stage>.safetensors` in it, the curves
            `logs/<stage>/`.
        minutes: wall time after which to save and stop.
        every: steps between two lines of progress; the state is saved every tenth line.

    Returns:
        Whether all steps are done.
    """
    path = out / "state" / f"{stage.name}.safetensors"
    state = stage.restore(path) if path.is_file() else {}
    if stage.done < stage.steps:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=stage.steps - stage.done,
            max_epochs=-1,
            logger=CSVLogger(out / "logs", name=stage.name),
            log_every_n_steps=every,
            callbacks=[_Keeper(path, state, minutes, every)],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(stage, DataLoader(_Steps(stage), batch_size=None))
    return stage.done >= stage.steps
