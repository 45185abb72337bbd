"""Videos found by real micro-fits against the teacher as it stands, for the rules to label.

What a teacher wrongly likes shows only where someone climbs it. This runs short fits on training
tasks, of the recipe's own reasoner, and keeps what they show the teacher on the way and in the
end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlmteach.lora import InstanceLora
from vlmteach.mini.train.data import any_task, draws
from vlmteach.mini.train.pipeline import LADDER
from vlmteach.mini.train.teacher_data import Example
from vlmteach.mini.train.teacher_rows import TIMES
from vlmteach.mini.world import FPS, FRAMES, SIZE, Task, answers, families, make
from vlmteach.reward import instance_loss
from vlmteach.rollout import draw_noise, rollout, sample_latents
from vlmteach.seeding import generator
from vlmteach.types import ClipSpec, Role

STEPS = 12
RATE = 1.5e-3
"""Of the fits' LoRA."""
_KEPT = (0, 3, 6, 9, 12)
"""Steps whose frames are kept; the delivered clip is kept too."""


class Climber:
    """Reasoner, surrogate and LoRA of a recipe's folder, and the teacher to be climbed."""

    def __init__(self, out: Path, teacher: Any) -> None:
        from vlmteach.decoders.full import FullDecoder
        from vlmteach.decoders.taehv import TaehvDecoder
        from vlmteach.reasoners.wan import WanReasoner

        cpu = torch.device("cpu")
        self.reasoner: Any = WanReasoner.load(out / "wan", dtype=torch.float32, device=cpu)
        surrogate = out / "taehv.safetensors"
        self.decoder: Any = (
            TaehvDecoder.load(surrogate, dtype=torch.float32, device=cpu)
            if surrogate.is_file()
            else FullDecoder(self.reasoner.vae)
        )
        self.teacher = teacher
        targets = self.reasoner.lora_targets["all_linear"]
        self.lora = InstanceLora(self.reasoner.network, rank=8, alpha=8, targets=targets)

    def climb(self, task: Task, seed: int, *, full: bool) -> tuple[list[Tensor], list[float]]:
        """One micro-fit: kept frames [T, 3, H, W] in [0, 1], the delivered clip last, and losses.

        Args:
            task: of the train split.
            seed: of noise and adapter.
            full: gradient through the whole chain instead of the first step.
        """
        from PIL import Image

        reasoner = self.reasoner
        clip = ClipSpec(frames=FRAMES, height=SIZE, width=SIZE, fps=FPS)
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
        optimiser = torch.optim.AdamW(self.lora.parameters, lr=RATE, weight_decay=0.0)
        kept, losses = [], []
        for step in range(STEPS + 1):
            z0 = rollout(
                reasoner, condition, noise, LADDER, stop=len(LADDER) - 1 if full else 0, grad_from=0
            )
            frames = self.decoder.decode(z0, tuple(range(FRAMES)))
            loss = instance_loss(self.teacher.log_p_yes(frames, prepared), roles, 0.5)
            losses.append(loss.item())
            if step in _KEPT:
                kept.append(frames.detach())
            if step < STEPS:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            kept.append(reasoner.decode(sample_latents(reasoner, condition, noise, LADDER)))
        return [frames.clamp(0, 1) for frames in kept], losses


def collect(out: Path, teacher: Any, file: Path, *, seed: int, count: int, minutes: float) -> None:
    """Runs fits and writes their videos; says how often the teacher was fooled.

    Args:
        out: folder of the recipe, with `wan/` and `taehv.safetensors`.
        teacher: as `QwenVLTeacher.load` gives it.
        file: safetensors to write.
        seed: of tasks and noise.
        count: fits at most.
        minutes: wall time at most.
    """
    climber, start = Climber(out, teacher), time.monotonic()
    names = [family.name for family in families()]
    videos, places, fooled, gains = [], [], [], []
    for index in range(count):
        if time.monotonic() - start > 60 * minutes:
            break
        task = any_task(draws(seed, "found", index))
        kept, losses = climber.climb(task, seed + index, full=index % 3 == 0)
        labels = [answers(task, _video(frames)) for frames in (kept[0], kept[-1])]
        fooled.append(losses[-1] < 0.4 and min(labels[1]) < 0.5)
        gains.append([sum(labels[1]) - sum(labels[0]), losses[0], losses[-1]])
        for frames in kept:
            videos.append(torch.from_numpy((_video(frames) * 255).round().astype(np.uint8)))
            places.append([names.index(task.family), task.seed])
        if index % 20 == 19:
            gain, first, last = np.mean(gains, axis=0)
            print(
                f"found {index + 1}/{count}  fooled {np.mean(fooled):.2f}  gain {gain:.2f}  "
                f"loss {first:.2f} -> {last:.2f}  {(time.monotonic() - start) / 60:.1f} min",
                flush=True,
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"videos": torch.stack(videos), "places": torch.tensor(places)}, file)


class Found:
    """All videos that `collect` wrote into a folder."""

    def __init__(self, files: list[Path]) -> None:
        loaded = [load_file(file) for file in files]
        self.videos = torch.cat([part["videos"] for part in loaded]).numpy()
        self.places = torch.cat([part["places"] for part in loaded]).tolist()
        self._names = [family.name for family in families()]

    def example(self, rng: np.random.Generator) -> Example:
        """One of them, now and then blended with another of the same task's fit."""
        index = int(rng.integers(len(self.places)))
        place, seed = self.places[index]
        task = make(self._names[place], "train", seed)
        video = self.videos[index].astype(np.float32) / 255
        mate = index + int(rng.integers(-2, 3))
        if 0 <= mate < len(self.places) and self.places[mate] == [place, seed]:
            weight = np.float32(rng.random() * (rng.random() < 0.4))
            video = video + weight * (self.videos[mate].astype(np.float32) / 255 - video)
        return Example(task, video, answers(task, video), "found")


def _video(frames: Tensor) -> np.ndarray:
    return frames.permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    from vlmteach.mini.train.teacher_rows import Writer

    parser = argparse.ArgumentParser(description="Collects the videos that fits find.")
    parser.add_argument("teacher", type=Path, help="checkpoint folder of the teacher to climb")
    parser.add_argument("--out", type=Path, required=True, help="folder of the recipe")
    parser.add_argument("--file", type=Path, required=True, help="safetensors to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="fits at most")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    collect(
        options.out,
        Writer(options.teacher).teacher,
        options.file,
        seed=options.seed,
        count=options.count,
        minutes=options.minutes,
    )
