"""The reasoner: flow matching at the four rungs of the ladder, on tasks carried out perfectly."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.data import any_task, draws, pixels
from benchmarks.mini.train.loop import Stage, train
from benchmarks.mini.train.pipeline import (
    LADDER,
    Velocity,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    save_pipeline,
)
from vlmteach.mini.world import PERFECT, Execution, Task, perform

STEPS = 1800
BATCH = 24
RATE = 1.5e-3
VIDEOS = 24_000


class Performances:
    """A bank of videos as normalised latents, each encoded when it is first asked for.

    Args:
        vae: the autoencoder, frozen.
        seed: of the recipe.
        stage: part of the seeds.
        count: videos in the bank.
    """

    def __init__(self, vae: Any, *, seed: int, stage: str, count: int) -> None:
        self.vae = vae
        self.seed = seed
        self.stage = stage
        self.count = count
        self._latents: dict[int, Tensor] = {}
        self._prompts: dict[int, str] = {}

    def performance(self, task: Task, rng: np.random.Generator) -> tuple[Execution, str]:
        """How the task is carried out, and the prompt that this is the answer to."""
        return PERFECT, task.prompt

    @torch.no_grad()
    def take(self, indices: list[int]) -> tuple[Tensor, list[str]]:
        """Latents [B, C, t, h, w] and prompts of the videos with these numbers."""
        fresh = sorted({index for index in indices if index not in self._latents})
        if fresh:
            videos = []
            for index in fresh:
                rng = draws(self.seed, f"{self.stage}/video", index)
                task = any_task(rng)
                execution, self._prompts[index] = self.performance(task, rng)
                videos.append(perform(task, execution))
            with quick_arithmetic():
                latents = self.vae.encode(pixels(videos)).latent_dist.mode()
            latents = autoencoder.normalised(self.vae, latents.float()).half()
            self._latents.update(zip(fresh, latents, strict=True))
        chosen = torch.stack([self._latents[index] for index in indices]).float()
        return chosen, [self._prompts[index] for index in indices]


class FlowMatching(Stage):
    """Error of the clean-latent prediction, each video at the first rung and at one other.

    In the VAE's own scale: a latent channel that hardly varies hardly shows.
    """

    def __init__(
        self,
        velocity: Velocity,
        bank: Performances,
        *,
        name: str,
        seed: int,
        steps: int,
        rate: float,
        batch: int = BATCH,
    ) -> None:
        super().__init__(velocity, name=name, seed=seed, steps=steps, rate=rate, averaging=0.998)
        self.bank = bank
        self.count = batch
        scale = torch.tensor(bank.vae.config.latents_std)
        self.weight = (scale**2 / (scale**2).mean()).view(1, -1, 1, 1, 1)

    def batch(self, step: int) -> tuple[Tensor, list[str]]:
        """Latents and prompts from the bank, drawn from (seed, stage, step)."""
        rng = draws(self.seed, self.name, step)
        return self.bank.take(rng.integers(self.bank.count, size=self.count).tolist())

    def wanted(self, z0: Tensor, z: Tensor, sigma: Tensor, prompts: list[str]) -> Tensor:
        """The clean latents [B, C, t, h, w] that the prediction is held against: the video's own.

        Args:
            z0: of the videos, [B, C, t, h, w].
            z: the same with noise.
            sigma: noise level per sample, [B].
            prompts: B of them.
        """
        return z0

    def loss(
        self, batch: tuple[Tensor, list[str]], draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The clean latents' error at the first rung and at one other; what is logged."""
        z0, prompts = batch
        count = len(prompts)
        later = torch.randint(1, len(LADDER), (count,), generator=draw)
        rungs = torch.cat([torch.zeros(count, dtype=torch.long), later])
        z0 = torch.cat([z0, z0])
        sigma = torch.tensor(LADDER)[rungs] / 1000
        level = sigma.view(-1, 1, 1, 1, 1)
        noise = torch.randn(z0.shape, generator=draw)
        z = (1 - level) * z0 + level * noise
        text, bias = self.network.prompts(prompts)
        texts = (text.repeat(2, 1, 1), bias.repeat(2, 1, 1, 1))
        with quick_arithmetic():
            u = self.network(z, sigma, z0[:, :, :1], texts).float()
            wanted = self.wanted(z0, z, sigma, prompts * 2)
        missed = (z - level * u - wanted)[:, :, 1:]
        per_sample = (self.weight * missed.square()).mean((1, 2, 3, 4))
        first = per_sample[:count].mean()
        return per_sample.mean(), {"first": first.detach(), "later": per_sample[count:].mean()}


def run(arguments: argparse.Namespace) -> None:
    """The stage: trains transformer and text encoder together, writes `able/`."""
    torch.manual_seed(arguments.seed)
    vae = autoencoder.load(arguments.out)
    tokenizer = build_tokenizer()
    velocity = Velocity(build_transformer(), build_text_encoder(len(tokenizer)), tokenizer)
    bank = Performances(vae, seed=arguments.seed, stage="reasoner", count=VIDEOS)
    stage = FlowMatching(
        velocity,
        bank,
        name="reasoner",
        seed=arguments.seed,
        steps=arguments.steps or STEPS,
        rate=RATE,
    )
    if train(stage, arguments.out, minutes=arguments.minutes):
        stage.deliver()
        save_pipeline(velocity, arguments.out / "vae", arguments.out / "able")
