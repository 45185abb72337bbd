"""Every family and method taken through the entrance on the device, and what came of each."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.accelerators import CPUAccelerator
from PIL import Image

import vlmteach
from tests.device import gpu
from tests.families import cases
from vlmteach.builtin.paths import builtin_path
from vlmteach.config import (
    ClassConfig,
    ClipConfig,
    Config,
    DecoderConfig,
    FitConfig,
    LoraConfig,
    PassAtNConfig,
    ReasonerConfig,
    RunConfig,
    TeacherConfig,
    VideoTPOConfig,
    VLMSolverConfig,
)
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.families import REASONERS, TEACHERS, family_class
from vlmteach.types import ClipSpec

FRAME = Image.new("RGB", (32, 32), "white")
FRAME.paste("red", (4, 4, 12, 12))
CLIP = ClipSpec(frames=5, height=32, width=32, fps=8.0)
TASK: dict[str, Any] = {"prompt": "Move it.", "image": FRAME, "goal": "Is it?", "process": ["Is?"]}


LADDER = (1000.0, 500.0)
SETTINGS: list[dict[str, Any]] = [
    {},
    {"checkpointing": True, "keep_weight": 0.1},
    {"gradient": "full"},
]
"""Of one fit after the other."""
OWN_READS = 3
"""Waits of a fit's first update in this package: whether the adapter is still the base model (which
later ones do not ask), the reading, and the gradient's norm. All others are in transformers' and
diffusers' forward passes."""
REPLIES: dict[str, tuple[list[Any], int]] = {
    "base": ([], 4),
    "pass_at_n": ([], 28),
    "prompt_rewrite": ([{"prompt": "Push it."}], 29),
    "video_tpo": (["Worse.", "Name the way.", {"prompt": "Push it."}], 49),
    "vlm_solver": ([{"prompt": "First."}, {"accept": True}], 59),
}
"""Every method but the micro-fit -> what its teacher says at each call, in place of a random one's
letters, and how often the host may wait in an instance. The first that tells the reasoner some
prompt waits once more: its embedding is kept."""


class OneUpdate(pl.Callback):
    """Counts the read-backs of the first update: all passes, the step, the reading."""

    seen: ClassVar[list[int]] = []

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self.before = gpu.reads.total()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.seen.append(gpu.reads.total() - self.before)


class Scripted:
    """A teacher that writes a token on the device, and says what is in the script."""

    def __init__(self, teacher: Any, replies: Sequence[Any]) -> None:
        self.teacher = teacher
        self.replies = list(replies)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)

    def write(self, instruction: str, images: Sequence[Any], max_new_tokens: int) -> str:
        self.teacher.write(instruction, images, 1)
        reply = self.replies.pop(0)
        return reply if isinstance(reply, str) else json.dumps(reply)


def fits() -> Iterator[tuple[Config, int]]:
    """Every reasoner and every teacher in some fit, and how often an update may wait."""
    reasoners, teachers = cases("reasoner"), cases("teacher")
    pairs = zip(cycle(REASONERS), cycle(TEACHERS), cycle(SETTINGS), strict=False)
    for reasoner, teacher, settings in islice(pairs, max(len(REASONERS), len(TEACHERS))):
        folder = Path(tempfile.mkdtemp())
        reasoners[reasoner].save(folder / "reasoner", "image")
        teachers[teacher].save(folder / "teacher")
        # The first reasoner's surrogate, and the others' own decoders.
        decoder = "full" if reasoner != next(iter(REASONERS)) else "taehv"
        evaluations = len(LADDER) if settings.get("gradient") == "full" else 1
        most = OWN_READS + evaluations * reasoners[reasoner].reads + teachers[teacher].reads
        yield config(folder, reasoner, decoder, teacher, **settings), most


def config(folder: Path, reasoner: str, decoder: str, teacher: str, **fit: Any) -> Config:
    small = {} if decoder == "full" else {"checkpoint": "builtin:random/taehv.safetensors"}
    return Config(
        clip=ClipConfig(frames=5, fps=8.0, height=32, width=32),
        reasoner=ReasonerConfig(
            family=reasoner,
            checkpoint=str(folder / "reasoner"),
            dtype="float32",
            ladder=LADDER,
        ),
        decoder=DecoderConfig(family=decoder, dtype="float32", **small),
        teacher=TeacherConfig(
            family=teacher, checkpoint=str(folder / "teacher"), dtype="float32", frames=3
        ),
        lora=LoraConfig(rank=2),
        fit=FitConfig(steps=1, learning_rate=1e-2, **fit),
        pass_at_n=PassAtNConfig(candidates=2),
        video_tpo=VideoTPOConfig(rounds=1),
        vlm_solver=VLMSolverConfig(segments=1, tries=1),
        run=RunConfig(base_video="none"),
        callbacks=(ClassConfig(class_path="tests.device.journeys.OneUpdate"),),
    )


def the_device_itself() -> dict[str, Any]:
    """What it is trusted with: it refuses and counts."""
    here, there = torch.ones(2, 3), torch.ones(2, 3, device="gpu:0")
    frames = torch.ones(1, 1, 4, 4, device="gpu:0", requires_grad=True)
    refused = []
    for attempt in (
        lambda: here + there,
        lambda: there @ here.T,
        lambda: torch.cat([there, here]),
    ):
        try:
            attempt()
        except RuntimeError as error:
            refused.append(str(error))
    F.interpolate(frames, scale_factor=2, mode="bicubic", antialias=True).sum().backward()
    assert torch.equal(there.cumsum(0).long().cpu(), there.long().cumsum(0).cpu())
    inexact = dict(gpu.inexact)
    gpu.inexact.clear()
    gpu.reads.clear()
    assert bool((there == 1).all())
    assert there.sum().item() == 6
    assert there.tolist() == here.tolist()
    assert torch.equal(there[there > 0].cpu(), here.flatten())
    assert torch.tensor([there.sum(), 1.0], device="gpu:0").device.type == "gpu"
    return {"refused": refused, "inexact": inexact, "reads": gpu.reads.total()}


def decoders() -> dict[str, Any]:
    """Those of the other latent spaces, which no fit here goes through."""
    off = {}
    for name, vae in (("taehv", True), ("taehv1_5", False)):
        path = builtin_path(f"random/{name}.safetensors")
        made = {
            place: TaehvDecoder.load(path, dtype=torch.float32, device=place, vae_latents=vae)
            for place in ("cpu", "gpu:0")
        }
        z0 = torch.rand(1, made["cpu"].facts.latent_channels, 2, 2, 2)
        pixels = [made[place].decode(z0.to(place), [0, 2, 3]) for place in made]
        off[name] = (pixels[0] - pixels[1].cpu()).abs().max().item()
    return {"off": off}


PROMPTS = ("Move it.", 'Write "up" on it.', "Turn it.", "Move it.")


def loans() -> dict[str, Any]:
    """Every reasoner's encoding of prompts: bytes of the text encoders, bytes lent for each prompt
    alone, told of the next ones, and once more; how far the first are from those of the CPU, and
    whether the others are the same bits."""
    found = {}
    for family in REASONERS:
        folder = Path(tempfile.mkdtemp())
        cases("reasoner")[family].save(folder, "text")
        options = {"dtype": torch.float32, "accepts": "text"}
        load = partial(family_class(REASONERS, family).load, folder, **options)
        home, there = load(device=torch.device("cpu")), torch.device("gpu:0")
        reasoner = load(device=there)
        lent: dict[str, list[int]] = {}
        told: dict[str, list[list[torch.Tensor]]] = {}
        for kind in ("alone", "ahead", "again"):
            if kind == "ahead":
                reasoner = load(device=there)
            lent[kind], told[kind] = [], []
            for number, prompt in enumerate(PROMPTS):
                ahead = PROMPTS[number + 1 :] if kind == "ahead" else ()
                gpu.lent.clear()
                told[kind].append(_told(reasoner.encode(prompt, None, CLIP, ahead)))
                lent[kind].append(gpu.lent.total())
        off = max(
            (mine - his).abs().max().item()
            for prompt, texts in zip(PROMPTS, told["alone"], strict=True)
            for mine, his in zip(texts, _told(home.encode(prompt, None, CLIP)), strict=True)
            if mine.numel()
        )
        same = all(
            torch.equal(mine, his)
            for kind in ("ahead", "again")
            for texts, others in zip(told["alone"], told[kind], strict=True)
            for mine, his in zip(texts, others, strict=True)
        )
        stay = {p.device.type for e in _encoders(reasoner) for p in e.parameters()}
        size = [sum(p.nbytes for p in e.parameters()) for e in _encoders(reasoner)]
        found[family] = {"size": size, "lent": lent, "off": off, "same": same, "stay": sorted(stay)}
    return found


def _told(condition: Any) -> list[torch.Tensor]:
    """What the text encoders made of a prompt."""
    return [getattr(condition, n).cpu() for n in ("text", "glyphs") if hasattr(condition, n)]


def _encoders(reasoner: Any) -> list[Any]:
    """Those of text, the one that every prompt needs first."""
    if hasattr(reasoner, "parts"):
        return [reasoner.parts.text_encoder, reasoner.parts.glyph_encoder]
    return [reasoner.text_encoder]


def fit(settings: Config) -> dict[str, Any]:
    losses = []
    for place in ("cpu", "gpu:0"):
        models = vlmteach.load(settings, device=place)
        OneUpdate.seen.clear()
        readings = vlmteach.solve(models, **TASK).readings
        losses.append([reading.loss for reading in readings])
    off = max(math.dist([a], [b]) for a, b in zip(*losses, strict=True))
    written = models.models.teacher.write("Hi.", [FRAME], 2)
    return {"reads": OneUpdate.seen[0], "readings": len(losses[1]), "off": off, "wrote": written}


def rows() -> Iterator[dict[str, Any]]:
    # Lightning has no accelerator for it; that of the CPU does nothing but refuse other devices.
    CPUAccelerator.setup_device = lambda self, device: None  # pyright: ignore
    yield {"name": "device", **the_device_itself()}
    yield {"name": "decoders", **decoders()}
    yield {"name": "loans", "of": loans()}
    tried = list(fits())
    for settings, most in tried:
        parts = (settings.reasoner.family, settings.decoder.family, settings.teacher.family)
        yield {"name": "/".join(parts), "most": most, **fit(settings)}
    loaded = vlmteach.load(tried[0][0], device="gpu:0")
    for name, (replies, most) in REPLIES.items():
        teacher: Any = Scripted(loaded.models.teacher, replies)
        models = replace(loaded, models=replace(loaded.models, teacher=teacher))
        gpu.reads.clear()
        solved = vlmteach.solve(models, **TASK, method=name)
        ends = {"frames": len(solved.frames), "left": len(teacher.replies)}
        yield {"name": name, "most": most, "reads": gpu.reads.total(), **ends}
    yield {"name": "all", "inexact": dict(gpu.inexact)}
