"""Many micro-fits at once against a teacher in training: one network, an adapter per task.

What `vlmteach.micro_fit` does to one instance, for a batch of tasks; a test holds the two equal. On
a CPU a model this small spends its time between the operations, so a batch costs little more than
a single fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.mini.train import autoencoder, surrogate
from benchmarks.mini.train.arithmetic import quick_arithmetic
from benchmarks.mini.train.pipeline import LADDER, load_velocity
from benchmarks.mini.train.teacher.rows import Rows, Writer
from vlmteach.clamp import straight_through_clamp
from vlmteach.frames import draw_shift, shifted
from vlmteach.mini.world import SIZE, Task
from vlmteach.reasoners.wan import LORA_TARGETS
from vlmteach.seeding import generator

STEPS = 20
RATE = 8e-4
"""Of the adapters; the fits of a batch take half of it to twice it."""
RANK = 8
SHIFT = 1 / SIZE
"""Largest random shift of what the teacher sees, as the preset `mini` has it: a pixel."""
_KEPT = (0, 4, 8, 11, 14, 17, 20)
"""Steps whose frames are kept; the delivered clip is kept too."""


class Adapters:
    """LoRAs of rank `RANK` (alpha the same), one per row of the batch, on a frozen transformer."""

    def __init__(self, transformer: nn.Module) -> None:
        targets = re.compile(str(LORA_TARGETS["all_linear"]))
        self.layers = {
            name: layer
            for name, layer in transformer.named_modules()
            if isinstance(layer, nn.Linear) and targets.fullmatch(name)
        }
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for name, layer in self.layers.items():
            layer.register_forward_hook(partial(self._add, name))

    def _add(self, name: str, layer: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        if not self.pairs:
            return out
        a, b = self.pairs[name]
        return out + given[0] @ a @ b

    def reset(self, count: int, draw: torch.Generator) -> list[Tensor]:
        """Fresh adapters, A as peft draws it, B zero; returns what is to be trained."""
        for name, layer in self.layers.items():
            bound = 1 / math.sqrt(layer.in_features)
            a = (2 * torch.rand(count, layer.in_features, RANK, generator=draw) - 1) * bound
            b = torch.zeros(count, RANK, layer.out_features)
            self.pairs[name] = (a.requires_grad_(), b.requires_grad_())
        return [part for pair in self.pairs.values() for part in pair]

    def remove(self) -> None:
        """The base model again."""
        self.pairs = {}


class Climber:
    """Reasoner, surrogate and autoencoder of a recipe's folder, and a writer of rows."""

    def __init__(self, out: Path, writer: Writer) -> None:
        self.velocity = load_velocity(out / "wan").eval().requires_grad_(False)
        self.adapters = Adapters(self.velocity.transformer)
        self.surrogate = surrogate.load(out)
        self.vae = autoencoder.load(out)
        self.writer = writer

    def climb(
        self, network: Any, tasks: Sequence[Task], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """One micro-fit per task.

        Args:
            network: the teacher's, to be climbed; its weights collect no gradient.
            tasks: of the train split.
            rng: draws noise and adapters, the learning rate, each goal's weight, and whether the
                gradient comes from the first step or from the whole chain.

        Returns:
            Kept frames [B, K, T, 3, H, W] in [0, 1], the delivered clips last, and log P("Yes") of
            every query about those, [B, Q].
        """
        seed = int(rng.integers(2**31))
        rate = RATE * 2 ** float(rng.uniform(-1, 1))
        rungs = len(LADDER) if rng.random() < 0.25 else 1
        weight = torch.from_numpy(rng.uniform(0.25, 0.6, len(tasks)).astype(np.float32))
        first = self._first([task.first_frame for task in tasks])
        with torch.no_grad():
            said = self.velocity.prompts([task.prompt for task in tasks])
        rows = self.writer.questions([[query.text for query in task.queries] for task in tasks])
        draw = generator(seed, "fits", "noise")
        shape = (len(tasks), first.shape[1], 3, *first.shape[3:])
        noise = [torch.randn(shape, generator=draw) for _ in LADDER]
        trained = self.adapters.reset(len(tasks), generator(seed, "fits", "lora"))
        optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
        kept = []
        for step in range(STEPS + 1):
            with torch.set_grad_enabled(step < STEPS):
                frames = self.shown(self.velocity.predict(noise[:rungs], first, said))
                shift = draw_shift(SHIFT, seed=seed, key="fits", update=step)
                log_yes = self._told(network, shifted(frames, *shift), rows)
            if step in _KEPT:
                kept.append(frames.detach())
            if step < STEPS:
                loss = -weight * log_yes[:, 0] - (1 - weight) * log_yes[:, 1:].mean(1)
                for part, slope in zip(
                    trained, torch.autograd.grad(loss.sum(), trained), strict=True
                ):
                    part.grad = slope
                optimiser.step()
        with torch.no_grad():
            z0 = self.velocity.predict(noise, first, said)
            video = autoencoder.decode(self.vae, autoencoder.denormalised(self.vae, z0))
            kept.append((video / 2 + 0.5).transpose(1, 2))
            told = self._told(network, kept[-1].clamp(0, 1), rows)
        self.adapters.remove()
        return torch.stack(kept, 1).clamp(0, 1), told

    def shown(self, z0: Tensor) -> Tensor:
        """Latents [B, C, t, h, w] as the surrogate decodes them: [B, T, 3, H, W] in [0, 1]."""
        return straight_through_clamp(surrogate.decode(self.surrogate, z0))

    def _first(self, images: Sequence[np.ndarray]) -> Tensor:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[:, :, None]
        with torch.no_grad():
            z = self.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mode()
        return autoencoder.normalised(self.vae, z)

    def _told(self, network: Any, frames: Tensor, rows: Rows) -> Tensor:
        with quick_arithmetic():
            return self.writer.log_yes(network, frames, rows)
