"""Both adapter files load in diffusers' own pipeline and reproduce the delivered clip."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlmteach import clip_writer, models
from vlmteach.builtin.paths import builtin_path
from vlmteach.config import ClipConfig, Config, FitConfig, LoraConfig, ReasonerConfig, TeacherConfig
from vlmteach.instances import decode, fit_first_frame, pack, read_samples
from vlmteach.methods import MicroFitMethod, Resources, carry_out
from vlmteach.rollout import draw_noise
from vlmteach.types import ClipSpec
from vlmteach.video import to_uint8

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
    """One solved instance, and the frames it delivered, before H.264 touches them."""
    folder = tmp_path_factory.mktemp("adapter")
    pack(DATA, folder / "data.tar")
    instance = decode(next(read_samples([str(folder / "data.tar")])))
    loaded = models.load(CONFIG, torch.device("cpu"))
    resources = Resources(CONFIG, loaded, {})
    delivered = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            clip_writer,
            "write_video",
            lambda path, frames, fps, given_up: delivered.update({path.stem: frames}),
        )
        carry_out(MicroFitMethod(resources), resources, instance, folder)
    clip = ClipSpec(frames=5, height=64, width=64, fps=8.0)
    assert instance.first_frame is not None
    picture = fit_first_frame(instance.first_frame, clip)
    shape = loaded.reasoner.latent_shape(clip)
    noise = draw_noise(
        shape, len(CONFIG.reasoner.ladder), seed=0, key=instance.key, device=torch.device("cpu")
    )
    return folder, replace(instance, first_frame=picture), clip, noise, delivered


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter.comfyui.safetensors"])
def test_pipeline_with_the_adapter_makes_the_clip(file, solved, run_pipeline):
    folder, instance, clip, noise, delivered = solved

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
        return to_uint8(pixels[0]).int()

    with_adapter = (frames(folder / file) - delivered["clip"].int()).abs()
    # alpha / rank is folded into B, which rounds: a value on the edge of a grey level may tip.
    assert with_adapter.max() <= 1
    assert with_adapter.float().mean() < 1e-3
    assert torch.equal(frames(None), delivered["base"].int())
    assert (delivered["base"].int() - delivered["clip"].int()).float().abs().mean() > 1
