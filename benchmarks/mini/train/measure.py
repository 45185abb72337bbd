"""`python -m benchmarks.mini.train.measure DIR`: what a recipe can do, on the tuning split.

Prints one JSON object: the autoencoder's and the surrogate's PSNR, the share of reconstructed
truths that are strictly right, and the reasoners' scores per family and over several noises.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.mini.train import autoencoder
from benchmarks.mini.train.data import any_execution, pixels
from benchmarks.mini.train.pipeline import Velocity, load_velocity
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.mini.world import Score, Task, families, make, perform, score
from vlmteach.seeding import generator


def tuning_tasks(count: int, start: int = 0) -> list[Task]:
    """Tasks of the tuning split, all families in turn."""
    names = [family.name for family in families()]
    return [
        make(names[index % len(names)], "tuning", start + index // len(names))
        for index in range(count)
    ]


def frames(video: Tensor) -> list[np.ndarray]:
    """Pixels [B, 3, T, H, W] in [-1, 1] -> uint8 videos [T, H, W, 3]."""
    grey = ((video.clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(grey.permute(0, 2, 3, 4, 1).numpy())


@torch.no_grad()
def of_autoencoder(out: Path, tasks: Sequence[Task]) -> dict[str, float]:
    """PSNR in dB on clean and flawed videos of the tasks, and the strict share of the clean."""
    vae = autoencoder.load(out)
    rng = np.random.default_rng(0)
    clean = pixels([task.truth for task in tasks])
    flawed = pixels([perform(task, any_execution(rng, task)) for task in tasks])
    latents, made = {}, {}
    for name, videos in (("clean", clean), ("flawed", flawed)):
        parts = [vae.encode(chunk).latent_dist.mode() for chunk in videos.split(16)]
        latents[name] = torch.cat(parts)
        made[name] = torch.cat([autoencoder.decode(vae, z) for z in latents[name].split(16)])
    scores = [score(task, video) for task, video in zip(tasks, frames(made["clean"]), strict=True)]
    facts = {
        "psnr_clean": _psnr(made["clean"], clean),
        "psnr_flawed": _psnr(made["flawed"], flawed),
        "strict": float(np.mean([row.strict for row in scores])),
        "goal": float(np.mean([row.goal for row in scores])),
        "process": float(np.mean([row.process for row in scores])),
    }
    if (out / "taehv.safetensors").is_file():
        taehv = TaehvDecoder.load(
            out / "taehv.safetensors", dtype=torch.float32, device=torch.device("cpu")
        )
        z = autoencoder.normalised(vae, torch.cat([latents["clean"], latents["flawed"]]))
        light = torch.stack([taehv.decode(one[None]) for one in z]).transpose(1, 2) * 2 - 1
        full = torch.cat([made["clean"], made["flawed"]])
        facts["surrogate_psnr_to_vae"] = _psnr(light, full)
        facts["surrogate_psnr_to_truth"] = _psnr(light, torch.cat([clean, flawed]))
        rows = [
            score(task, video)
            for task, video in zip(tasks, frames(light[: len(tasks)]), strict=True)
        ]
        facts["surrogate_strict"] = float(np.mean([row.strict for row in rows]))
    return facts


def _psnr(made: Tensor, truth: Tensor) -> float:
    return float(autoencoder.psnr((made.clamp(-1, 1) - truth).square().mean()))


@torch.no_grad()
def rolled_out(velocity: Velocity, vae: Any, tasks: Sequence[Task], seed: int) -> list[np.ndarray]:
    """One fully sampled video per task."""
    videos = []
    for start in range(0, len(tasks), 32):
        some = tasks[start : start + 32]
        stills = pixels([task.first_frame[None] for task in some])
        first = autoencoder.normalised(vae, vae.encode(stills).latent_dist.mode())
        draw = generator(seed, f"measure/{start}", "noise")
        z = velocity.sample([task.prompt for task in some], first, draw)
        videos += frames(autoencoder.decode(vae, autoencoder.denormalised(vae, z)))
    return videos


def of_reasoner(folder: Path, tasks: Sequence[Task], noises: int) -> dict[str, Any]:
    """Scores over tasks and noises; `seed_sd` is the standard deviation of a task's overall score
    from noise to noise, `task_sd` that of the tasks' means."""
    velocity, vae = load_velocity(folder), autoencoder.load(folder)
    rows: list[list[Score]] = []
    for seed in range(noises):
        videos = rolled_out(velocity, vae, tasks, seed)
        rows.append([score(task, video) for task, video in zip(tasks, videos, strict=True)])
    overall = np.array([[row.overall for row in some] for some in rows])
    strict = np.array([[row.strict for row in some] for some in rows])
    facts: dict[str, Any] = {
        "strict": strict.mean(),
        "overall": overall.mean(),
        "goal": np.mean([row.goal for some in rows for row in some]),
        "process": np.mean([row.process for some in rows for row in some]),
        "best_strict": strict.any(0).mean(),
        "best_overall": overall.max(0).mean(),
        "seed_sd": overall.std(0).mean(),
        "task_sd": overall.mean(0).std(),
    }
    facts = {key: round(float(value), 4) for key, value in facts.items()}
    facts["families"] = {
        name: _of_family([[row[i] for i in where] for row in rows])
        for name in dict.fromkeys(task.family for task in tasks)
        if (where := [i for i, task in enumerate(tasks) if task.family == name])
    }
    return facts


def _of_family(rows: list[list[Score]]) -> dict[str, Any]:
    every = [row for some in rows for row in some]
    parts = np.mean([row.process_parts for row in every], axis=0)
    return {
        "strict": round(float(np.mean([row.strict for row in every])), 3),
        "goal": round(float(np.mean([row.goal for row in every])), 3),
        "parts": [round(float(part), 2) for part in parts],
    }


def main() -> None:
    """Prints the measures that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mini.train.measure")
    parser.add_argument("out", type=Path, help="folder of the recipe")
    parser.add_argument("--tasks", type=int, default=260)
    parser.add_argument("--noises", type=int, default=1)
    parser.add_argument("--parts", nargs="*", default=["vae", "able", "flawed", "wan"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = tuning_tasks(arguments.tasks)
    facts: dict[str, Any] = {"tasks": len(tasks), "noises": arguments.noises}
    for part in arguments.parts:
        if (arguments.out / part).is_dir():
            facts[part] = (
                of_autoencoder(arguments.out, tasks)
                if part == "vae"
                else of_reasoner(arguments.out / part, tasks, arguments.noises)
            )
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
