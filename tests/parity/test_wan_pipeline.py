"""Sampling and one-step prediction equal diffusers' own Wan pipelines on the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image
from torch import Tensor

from vlmteach.builtin.wan import save_random_wan
from vlmteach.reasoners.base import Condition
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.rollout import Noise, draw_noise, rollout, sample_latents
from vlmteach.types import ClipSpec

CLIP = ClipSpec(frames=9, height=64, width=96, fps=24.0)
PROMPT = "  Move the &lt;ball&gt; to the red   square — slowly. "
CPU = torch.device("cpu")
TURBO = (1000.0, 750.0, 500.0, 250.0)
TURBO_AS_TRAINED = (1000.0, 937.5, 2500 / 3, 625.0)
FASTWAN = (1000.0, 757.0, 522.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    save_random_wan(folder)
    return folder


@pytest.fixture(scope="module")
def reasoner(checkpoint: Path) -> WanReasoner:
    return WanReasoner.load(checkpoint, dtype=torch.float32, device=CPU, accepts="both")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    values = torch.randint(0, 256, (8, 12, 3), generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray(values.to(torch.uint8).numpy())
    return picture.resize((CLIP.width, CLIP.height), Image.Resampling.NEAREST)


def posed(
    reasoner: WanReasoner, picture: Image.Image | None, ladder: Sequence[float]
) -> tuple[Condition, Noise]:
    condition = reasoner.encode(PROMPT, picture, CLIP)
    shape = reasoner.latent_shape(CLIP)
    return condition, draw_noise(shape, len(ladder), seed=0, key="parity/1", device=CPU)


@pytest.mark.parametrize("ladder", [TURBO, TURBO_AS_TRAINED, FASTWAN])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_full_sampling_equals_the_pipeline(
    run_pipeline, checkpoint, reasoner, picture, kind, ladder
):
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame, ladder)
    ours = sample_latents(reasoner, condition, noise, ladder)
    theirs = run_pipeline(checkpoint, PROMPT, CLIP, frame, noise, ladder, "latent")
    assert theirs.std() > 0.3  # a comparison of constants would prove nothing
    print(f"latents, {kind}, {len(ladder)} rungs: {(ours - theirs).abs().max():.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_decoded_frames_equal_the_pipeline(run_pipeline, checkpoint, reasoner, picture, kind):
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame, TURBO)
    ours = reasoner.decode(sample_latents(reasoner, condition, noise, TURBO))
    theirs = run_pipeline(checkpoint, PROMPT, CLIP, frame, noise, TURBO, "pt")[0]
    assert ours.shape == (CLIP.frames, 3, CLIP.height, CLIP.width)
    assert theirs.std() > 0.03
    print(f"pixels, {kind}: {(ours - theirs).abs().max():.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_one_step_prediction_equals_the_first_step(
    run_pipeline, checkpoint, reasoner, picture, kind
):
    """The pipeline's latents after its first step are the re-noised prediction: undo the noise."""
    frame = picture if kind == "image" else None
    condition, noise = posed(reasoner, frame, TURBO)
    ours = rollout(reasoner, condition, noise, TURBO, last_rung=0, grad_from=1)
    seen: list[Tensor] = []
    run_pipeline(checkpoint, PROMPT, CLIP, frame, noise, TURBO, "latent", seen=seen)
    after = TURBO[1] / 1000
    z0 = reasoner.impose((seen[0] - after * noise.renoise[0]) / (1 - after), condition)
    print(f"first step, {kind}: {(ours - z0).abs().max():.1e}")
    torch.testing.assert_close(ours, z0, rtol=0, atol=2e-5)  # float32, divided by 0.25


def test_a_ladder_of_one_rung_is_the_first_step(run_pipeline, checkpoint, reasoner, picture):
    condition, noise = posed(reasoner, picture, TURBO)
    ours = rollout(reasoner, condition, noise, TURBO, last_rung=0, grad_from=0)
    theirs = run_pipeline(checkpoint, PROMPT, CLIP, picture, noise, TURBO[:1], "latent")
    print(f"one rung: {(ours - theirs).abs().max():.1e}")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", [PROMPT, "", "é中 " * 400])
def test_text_embedding_equals_the_pipeline(checkpoint, reasoner, prompt):
    pipeline = WanPipeline.from_pretrained(checkpoint)
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=512
        )
    assert torch.equal(reasoner.encode(prompt, None, CLIP).text, theirs)


def test_first_frame_latent_equals_the_pipeline(checkpoint, reasoner, picture):
    pipeline: Any = WanImageToVideoPipeline.from_pretrained(checkpoint)
    pixels = pipeline.video_processor.preprocess(picture, height=CLIP.height, width=CLIP.width)
    with torch.no_grad():
        _, theirs, mask = pipeline.prepare_latents(
            pixels, 1, 48, CLIP.height, CLIP.width, CLIP.frames, torch.float32, CPU
        )
    ours = reasoner.encode(PROMPT, picture, CLIP).first_latent
    assert ours is not None
    assert torch.equal(ours, theirs)
    assert 0.3 < ours.std() < 3
    assert mask.sum() == mask.numel() * 2 / 3  # theirs frees all but the first of three latents
