"""Both adapter files load in diffusers' own pipeline and reproduce the delivered clip."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlmteach import models
from vlmteach.config import ClipConfig, Config, FitConfig, LoraConfig, ReasonerConfig, TeacherConfig
from vlmteach.instances import decode, fit_first_frame, pack, read_samples
from vlmteach.methods import Bench, TeacherMethod
from vlmteach.mini.builtin import builtin_path
from vlmteach.rollout import draw_noise
from vlmteach.types import ClipSpec
from vlmteach.video import to_uint8, write_video

DATA = Path(__file__).parent.parent / "data" / "vbvr"
CONFIG = Config(
    clip=ClipConfig(frames=5, fps=8.0, max_pixels=64 * 64),
    reasoner=ReasonerConfig(dtype="float32"),
    teacher=TeacherConfig(dtype="float32", frames=4),
    lora=LoraConfig(rank=4, alpha=10.0, targets="all_linear"),  # alpha is not rank, nor 2^n of it
    fit=FitConfig(steps=4, learning_rate=2e-2),
)


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    pack(DATA, folder / "data.tar")
    instance = decode(next(read_samples([str(folder / "data.tar")])))
    loaded = models.load(CONFIG, torch.device("cpu"))
    TeacherMethod(Bench(CONFIG, loaded, {})).solve(
        instance, folder, tell=lambda _: None, logger=None
    )
    clip = ClipSpec(frames=5, height=64, width=64, fps=8.0)
    assert instance.first_frame is not None
    picture = fit_first_frame(instance.first_frame, clip)
    shape = loaded.reasoner.latent_shape(clip)
    noise = draw_noise(
        shape, len(CONFIG.reasoner.ladder), seed=0, key=instance.key, device=torch.device("cpu")
    )
    return folder, replace(instance, first_frame=picture), clip, noise


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter.comfyui.safetensors"])
def test_pipeline_with_the_adapter_makes_the_clip(file, solved, run_pipeline, tmp_path):
    folder, instance, clip, noise = solved

    def frames(adapter):
        pixels = run_pipeline(
            builtin_path("random/wan"),
            instance.prompt,
            clip,
            instance.first_frame,
            noise,
            CONFIG.reasoner.ladder,
            "pt",
            adapter=adapter,
        )
        return to_uint8(pixels[0])

    write_video(tmp_path / "theirs.mp4", frames(folder / file), clip.fps)
    assert (tmp_path / "theirs.mp4").read_bytes() == (folder / "clip.mp4").read_bytes()
    write_video(tmp_path / "base.mp4", frames(None), clip.fps)
    assert (tmp_path / "base.mp4").read_bytes() == (folder / "base.mp4").read_bytes()
    assert (folder / "base.mp4").read_bytes() != (folder / "clip.mp4").read_bytes()
