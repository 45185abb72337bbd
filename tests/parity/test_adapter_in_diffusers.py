"""Both adapter files load in diffusers' own pipeline and reproduce the delivered clip."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils.state_dict_utils import (
    _load_sft_file_metadata,
    _load_sft_state_dict_metadata,
)

from vlmteach import clip_writer, models
from vlmteach.builtin.paths import builtin_path
from vlmteach.config import ClipConfig, Config, FitConfig, LoraConfig, ReasonerConfig, TeacherConfig
from vlmteach.instances import decode, fit_first_frame, pack, read_samples
from vlmteach.lora import ADAPTER
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
            lambda path, frames, *_: delivered.update({path.stem: frames}),
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


def test_diffusers_reads_no_scale_from_the_notes(solved):
    """Its own reader, which would take a LoRA's config from the header over the tensors' shapes."""
    for file in ("adapter.safetensors", "adapter.comfyui.safetensors"):
        path = str(solved[0] / file)
        assert _load_sft_state_dict_metadata(path) is None
        assert _load_sft_file_metadata(path)["vlmteach.base"] == "builtin:random/wan"


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_card_s_way_gives_the_same_velocity_as_ours(scale, solved):
    folder, instance, clip, noise, _ = solved
    ours, theirs = (models.load(CONFIG, torch.device("cpu")) for _ in range(2))
    condition = ours.reasoner.encode(instance.prompt, instance.first_frame, clip)
    before = ours.reasoner.velocity(noise.z1, 1.0, condition)
    ours.lora.load_file(folder / "adapter.safetensors", scale)
    after = ours.reasoner.velocity(noise.z1, 1.0, condition)
    network: Any = theirs.reasoner.network
    network.delete_adapters(ADAPTER)
    name = "adapter.safetensors"
    network.load_lora_adapter(folder, weight_name=name, prefix="transformer", adapter_name="task")
    network.set_adapters("task", scale)
    assert torch.equal(after, before) == (scale == 0)
    torch.testing.assert_close(
        after, theirs.reasoner.velocity(noise.z1, 1.0, condition), rtol=0, atol=1e-5
    )
