"""Videos found by real micro-fits against the teacher as it stands, for the rules to label.

What a teacher wrongly likes shows only where someone climbs it. From half-way on, the training runs
short fits on training tasks every few steps, of the recipe's own reasoner, and keeps what they show
the teacher on the way and in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmteach.lora import InstanceLora
from vlmteach.mini.train.data import draws
from vlmteach.mini.train.pipeline import LADDER
from vlmteach.mini.train.teacher_data import Example, any_task
from vlmteach.mini.train.teacher_rows import TIMES
from vlmteach.mini.world import FPS, FRAMES, SIZE, Task, answers, families, make
from vlmteach.reward import instance_loss
from vlmteach.rollout import draw_noise, rollout, sample_latents
from vlmteach.seeding import generator
from vlmteach.shift import draw_shift, shifted
from vlmteach.types import ClipSpec, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 20
RATE = 8e-4
"""Of the fits' LoRA; a fit takes half of it to twice it."""
SHIFT = 1 / SIZE
"""Largest random shift of what the teacher sees, as the preset `mini` has it: a pixel."""
_KEPT = (0, 4, 8, 11, 14, 17, 20)
"""Steps whose frames are kept; the delivered clip is kept too."""


class Climber:
    """Reasoner, surrogate and LoRA of a recipe's folder, and the teacher to be climbed."""

    def __init__(self, out: Path, teacher: Any) -> None:
        from vlmteach.decoders.taehv import TaehvDecoder
        from vlmteach.reasoners.wan import WanReasoner

        cpu, file = torch.device("cpu"), out / "taehv.safetensors"
        self.reasoner: Any = WanReasoner.load(out / "wan", dtype=torch.float32, device=cpu)
        self.decoder = TaehvDecoder.load(file, dtype=torch.float32, device=cpu)
        self.teacher = teacher
        targets = self.reasoner.lora_targets["all_linear"]
        self.lora = InstanceLora(self.reasoner.network, rank=8, alpha=8, targets=targets)

    def climb(self, task: Task, rng: np.random.Generator) -> tuple[list[Tensor], bool]:
        """One micro-fit.

        Args:
            task: of the train split.
            rng: draws noise and adapter, the learning rate, the goal's weight, and whether the
                gradient comes from the first step or from the whole chain.

        Returns:
            Kept frames [T, 3, H, W] in [0, 1], the delivered clip last, and whether the teacher
            says yes to every query about that.
        """
        from PIL import Image

        reasoner = self.reasoner
        clip = ClipSpec(frames=FRAMES, height=SIZE, width=SIZE, fps=FPS)
        seed = int(rng.integers(2**31))
        rate = RATE * 2 ** float(rng.uniform(-1, 1))
        goal_weight = float(rng.uniform(0.25, 0.6))
        stop = len(LADDER) - 1 if rng.random() < 0.25 else 0
        with torch.no_grad():
            condition = reasoner.encode(task.prompt, Image.fromarray(task.first_frame), clip)
        noise = draw_noise(
            reasoner.latent_shape(clip), len(LADDER), seed=seed, key=task.key,
            device=reasoner.device,
        )  # fmt: skip
        texts = [query.text for query in task.queries]
        roles: list[Role] = [query.role for query in task.queries]
        prepared = self.teacher.prepare(texts, TIMES, SIZE, SIZE)
        self.lora.reset(generator(seed, task.key, "lora"))
        optimiser = torch.optim.AdamW(self.lora.parameters, lr=rate, weight_decay=0.0)
        kept = []
        for step in range(STEPS + 1):
            z0 = rollout(reasoner, condition, noise, LADDER, stop=stop, grad_from=0)
            frames = self.decoder.decode(z0, tuple(range(FRAMES)))
            shift = draw_shift(SHIFT, seed=seed, key=task.key, update=step)
            log_yes = self.teacher.log_p_yes(shifted(frames, *shift), prepared)
            loss = instance_loss(log_yes, roles, goal_weight)
            if step in _KEPT:
                kept.append(frames.detach())
            if step < STEPS:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            clip_frames = reasoner.decode(sample_latents(reasoner, condition, noise, LADDER))
            told = self.teacher.log_p_yes(clip_frames, prepared).exp()
        kept.append(clip_frames)
        return [frames.clamp(0, 1) for frames in kept], bool((told > 0.5).all())


class Found:
    """All videos that fits have found so far, in a folder: one file per round, named by the step.

    Args:
        folder: of the safetensors files.
        before: rounds of this step and later do not count: a training that goes on from an
            earlier state makes them again.
    """

    def __init__(self, folder: Path, *, before: int) -> None:
        self.folder = folder
        self._names = [family.name for family in families()]
        self.videos: list[NDArray[np.uint8]] = []
        self.places: list[tuple[int, int]] = []
        for file in sorted(folder.glob("*.safetensors")):
            if int(file.stem) < before:
                part = load_file(file)
                self.videos += list(part["videos"].numpy())
                self.places += [(place, seed) for place, seed in part["places"].tolist()]

    def collect(self, climber: Climber, step: int, *, seed: int, count: int) -> dict[str, float]:
        """Runs fits against the teacher as it stands and keeps their videos.

        Args:
            climber: with the teacher of this step.
            step: of the teacher's training.
            seed: of the recipe.
            count: fits.

        Returns:
            `fooled`, the share of fits at whose end the teacher says yes to all and the rules do
            not; `gained`, by how much the rules' answers rose, in all.
        """
        videos: list[Tensor] = []
        places: list[tuple[int, int]] = []
        fooled, gained = [], []
        rng = draws(seed, "found", step)
        for _ in range(count):
            task = any_task(rng, "train")
            kept, yes = climber.climb(task, rng)
            first, last = (answers(task, _video(frames)) for frames in (kept[0], kept[-1]))
            fooled.append(yes and min(last) < 0.5)
            gained.append(sum(last) - sum(first))
            videos += [(frames.permute(0, 2, 3, 1) * 255).round().byte() for frames in kept]
            places += [(self._names.index(task.family), task.seed)] * len(kept)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{step:08}.safetensors"
        part = {"videos": torch.stack(videos), "places": torch.tensor(places)}
        save_file(part, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
        self.videos += [video.numpy() for video in videos]
        self.places += places
        return {"fooled": float(np.mean(fooled)), "gained": float(np.mean(gained))}

    def example(self, rng: np.random.Generator) -> Example:
        """One of them, half of them from the latest third; now and then on the way to another of
        the same fit, or to the truth."""
        index = self._index(rng)
        place, seed = self.places[index]
        task = make(self._names[place], "train", seed)
        video = _float(self.videos[index])
        mate, chance = index + int(rng.integers(-2, 3)), rng.random()
        weight = np.float32(rng.random())
        if chance < 0.25:
            video = video + weight * (_float(task.truth) - video)
        elif chance < 0.5 and 0 <= mate < len(self.places) and self.places[mate] == (place, seed):
            video = video + weight * (_float(self.videos[mate]) - video)
        return Example(task, video, answers(task, video), "found")

    def _index(self, rng: np.random.Generator) -> int:
        total = len(self.places)
        return int(rng.integers(2 * total // 3 if rng.random() < 0.5 else 0, total))


def _video(frames: Tensor) -> NDArray[np.float32]:
    return frames.permute(0, 2, 3, 1).numpy()


def _float(video: NDArray[np.uint8]) -> NDArray[np.float32]:
    return video.astype(np.float32) / np.float32(255)
