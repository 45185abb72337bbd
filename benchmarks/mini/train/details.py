"""The flawed reasoner learns to listen: a prompt that says more lowers what it gets wrong.

It sees bare prompts, carried out as badly as ever, and prompts with some of the task's details. A
detail mends the flaw it names, in a share that depends on the colour that acts: words can only
nudge, so that even all of them help some compositions to success and others hardly. As with the
flaws themselves, nothing depends on the noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.flaws import flawed
from benchmarks.mini.train.loop import train
from benchmarks.mini.train.pipeline import Velocity, load_velocity, save_pipeline, with_all_words
from benchmarks.mini.train.reasoner import FlowMatching, Performances
from vlmteach.mini.world import Execution, Task, detailed, details
from vlmteach.mini.world.details import WHICH
from vlmteach.mini.world.types import FLAWS

if TYPE_CHECKING:
    from numpy.random import Generator

STEPS = 800
RATE = 5e-4
VIDEOS = 8_000

GONE = 0.85
"""The way from the flawed reasoner's weights to the trained ones; less would leave bare prompts yet
closer to what they were, and words weaker."""
BARE = 0.4
"""Share of the prompts that have no detail."""
LEFT = {"green": 0.15, "yellow": 0.4, "cyan": 0.9, "blue": 0.95, "red": 0.95, "pink": 0.95}
"""Acting colour -> the share of a flaw that is left when a detail names it."""
_LEFT_WHICH = 0.95
"""The share of every flaw that is left when the acting colour is named."""


def mended(execution: Execution, task: Task, names: Collection[str]) -> Execution:
    """How a task is carried out when some of its details are said.

    Args:
        execution: how it is with its bare prompt.
        task: whose details.
        names: of details that it has; those of flaws that it is free of mend nothing.
    """
    left = dict.fromkeys(FLAWS, _LEFT_WHICH if WHICH in names else 1.0)
    for name in left.keys() & set(names):
        left[name] *= LEFT[task.cue[0]]
    undone = (1 - execution.extent) * left.pop("extent")
    return replace(
        execution,
        extent=1 - undone,
        **{name: getattr(execution, name) * share for name, share in left.items()},
    )


class DetailedPerformances(Performances):
    """The bank of videos whose prompts say more or less, carried out accordingly."""

    def __init__(self, vae: Any, *, seed: int, stage: str, count: int) -> None:
        super().__init__(vae, seed=seed, stage=stage, count=count)
        self.bare: set[str] = set()
        """Prompts that have no detail, of the tasks so far."""

    def performance(self, task: Task, rng: Generator) -> tuple[Execution, str]:
        """The task carried out with the flaws that its prompt leaves, and that prompt."""
        execution = flawed(task, rng)
        self.bare.add(task.prompt)
        if rng.random() < BARE:
            return execution, task.prompt
        known = list(details(task))
        said = rng.permutation(known)[: int(rng.integers(1, len(known) + 1))].tolist()
        return mended(execution, task, said), detailed(task, said)


class Listening(FlowMatching):
    """Flow matching that leaves bare prompts as they are: what is wanted there is the prediction of
    the reasoner before this stage. The videos alone would teach it its flaws once more, and better.
    What is delivered lies on the way from that reasoner to the trained one.
    """

    def __init__(self, velocity: Velocity, bank: DetailedPerformances, **settings: Any) -> None:
        super().__init__(velocity, bank, **settings)
        self.bare = bank.bare
        self.before = deepcopy(velocity).requires_grad_(False)

    @torch.no_grad()
    def wanted(self, z0: Tensor, z: Tensor, sigma: Tensor, prompts: list[str]) -> Tensor:
        """The videos' latents, and where the prompt is bare, what was predicted before."""
        where = [number for number, prompt in enumerate(prompts) if prompt in self.bare]
        if not where:
            return z0
        said = self.before.prompts([prompts[number] for number in where])
        u = self.before(z[where], sigma[where], z0[where, :, :1], said).float()
        wanted = z0.clone()
        wanted[where] = z[where] - sigma[where].view(-1, 1, 1, 1, 1) * u
        return wanted

    def deliver(self) -> nn.Module:
        """The network `GONE` of the way to its averaged weights, in eval mode."""
        super().deliver()
        with torch.no_grad():
            for (_, value), before in zip(self._weights(), self.before.parameters(), strict=True):
                value.copy_(before.lerp(value, GONE))
        return self.network


def run(arguments: argparse.Namespace) -> None:
    """The stage: fine-tunes the networks of `flawed/`, writes `wan/`.

    Raises:
        ValueError: there is no flawed reasoner.
    """
    folder = arguments.out / "flawed"
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"out: got {arguments.out} without flawed/, expected a flawed reasoner; run "
            f"`python -m benchmarks.mini.train flaws --out {arguments.out}` first"
        )
    torch.manual_seed(arguments.seed)
    velocity = with_all_words(load_velocity(folder), arguments.seed)
    vae = autoencoder.load(arguments.out)
    stage = Listening(
        velocity,
        DetailedPerformances(vae, seed=arguments.seed, stage="details", count=VIDEOS),
        name="details",
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
    )
    if train(stage, arguments.out, minutes=arguments.minutes):
        stage.deliver()
        save_pipeline(velocity, arguments.out / "vae", arguments.out / "wan")
