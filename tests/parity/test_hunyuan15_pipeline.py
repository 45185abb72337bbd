"""Sampling and one-step prediction equal diffusers' own HunyuanVideo-1.5 pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import HunyuanVideo15Pipeline
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5_image2video import (
    HunyuanVideo15ImageToVideoPipeline,
)
from PIL import Image

from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.hunyuan15 import HunyuanReasoner
from vlmteach.rollout import Noise, draw_noise, rollout, sample_latents
from vlmteach.types import ClipSpec

CLIP = ClipSpec(frames=5, height=48, width=80, fps=24.0)
"""One of the pipeline's own sizes for images, at the checkpoint's small target size."""
PROMPT = 'Move the ball onto the sign "exit", then to “the 2nd door” — slowly.'
CPU = torch.device("cpu")
LADDER = (1000.0, 954.5, 875.0, 700.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hunyuan15")
    save_random_hunyuan15(folder)
    return folder


@pytest.fixture(scope="module")
def reasoner(checkpoint: Path) -> HunyuanReasoner:
    return HunyuanReasoner.load(checkpoint, dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    values = torch.randint(0, 256, (6, 10, 3), generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray(values.to(torch.uint8).numpy())
    return picture.resize((CLIP.width, CLIP.height), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def run(ladder_scheduler):
    """Latents (`latent`) or frames (`pt`) of the pipeline."""

    def call(
        checkpoint: Path,
        picture: Image.Image | None,
        noise: Noise,
        ladder: Sequence[float],
        output_type: str,
        prompt: str = PROMPT,
    ) -> torch.Tensor:
        kind: Any = HunyuanVideo15ImageToVideoPipeline if picture else HunyuanVideo15Pipeline
        scheduler = ladder_scheduler(ladder, noise.renoise)
        pipeline = kind.from_pretrained(checkpoint, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        size = {"height": CLIP.height, "width": CLIP.width}
        return pipeline(
            prompt=prompt,
            num_frames=CLIP.frames,
            num_inference_steps=len(ladder),
            latents=noise.z1,
            output_type=output_type,
            **({"image": picture} if picture else size),
        ).frames

    return call


def posed(reasoner: HunyuanReasoner, picture: Image.Image | None, prompt: str = PROMPT):
    condition = reasoner.encode(prompt, picture, CLIP)
    shape = reasoner.latent_shape(CLIP)
    return condition, draw_noise(shape, len(LADDER), seed=0, key="parity/1", device=CPU)


@pytest.mark.parametrize("prompt", [PROMPT, "no quoted words", ""], ids=["glyphs", "plain", "none"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_full_sampling_equals_the_pipeline(run, checkpoint, reasoner, picture, kind, prompt):
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame, prompt)
    ours = sample_latents(reasoner, condition, noise, LADDER)
    theirs = run(checkpoint, frame, noise, LADDER, "latent", prompt)
    assert theirs.std() > 0.3  # a comparison of constants would prove nothing
    print(f"latents, {kind}: {(ours - theirs).abs().max():.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_decoded_frames_equal_the_pipeline(run, checkpoint, reasoner, picture, kind):
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame)
    ours = reasoner.decode(sample_latents(reasoner, condition, noise, LADDER))
    theirs = run(checkpoint, frame, noise, LADDER, "pt")[0]
    assert ours.shape == (CLIP.frames, 3, CLIP.height, CLIP.width)
    assert theirs.std() > 0.03
    print(f"pixels, {kind}: {(ours - theirs).abs().max():.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_one_step_prediction_is_a_ladder_of_one_rung(run, checkpoint, reasoner, picture, kind):
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame)
    ours = rollout(reasoner, condition, noise, LADDER, last_rung=0, grad_from=0)
    theirs = run(checkpoint, frame, noise, LADDER[:1], "latent")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_mean_flow_is_asked_for_clean_latents(run, picture, tmp_path):
    """The pipeline's last step goes to level 0, and so does our every prediction."""
    save_random_hunyuan15(tmp_path, mean_flow=True)
    reasoner = HunyuanReasoner.load(tmp_path, dtype=torch.float32, device=CPU)
    condition, noise = posed(reasoner, picture)
    ours = rollout(reasoner, condition, noise, LADDER, last_rung=0, grad_from=1)
    theirs = run(tmp_path, picture, noise, LADDER[:1], "latent")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_fresh_adapter_changes_nothing_and_a_loaded_one_is_diffusers_own(
    checkpoint, picture, tmp_path
):
    reasoner = HunyuanReasoner.load(checkpoint, dtype=torch.float32, device=CPU)
    condition, noise = posed(reasoner, picture)
    before = sample_latents(reasoner, condition, noise, LADDER[:2])
    targets = reasoner.lora_targets["all_linear"]
    lora = InstanceLora(reasoner.network, rank=2, alpha=3.0, targets=targets)
    lora.reset(torch.Generator().manual_seed(0))
    assert torch.equal(sample_latents(reasoner, condition, noise, LADDER[:2]), before)
    lora.load(lora.flat + 0.05 * torch.randn(lora.flat.shape))
    after = sample_latents(reasoner, condition, noise, LADDER[:2])
    assert (after - before).abs().max() > 0.01
    files = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    lora.export(*files, reasoner.comfyui_key, {"vlmteach.lora": '{"rank": 2, "alpha": 3.0}'})

    plain = HunyuanReasoner.load(checkpoint, dtype=torch.float32, device=CPU)
    network: Any = plain.network
    network.load_lora_adapter(tmp_path / "a.safetensors", prefix="transformer")
    theirs = sample_latents(plain, condition, noise, LADDER[:2])
    torch.testing.assert_close(theirs, after, rtol=0, atol=1e-5)
