"""The reference: diffusers' own Wan pipelines, on a given ladder and given noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_flow_match_lcm import FlowMatchLCMScheduler
from PIL.Image import Image
from torch import Tensor

from vlmteach.rollout import Noise
from vlmteach.types import ClipSpec


class LadderScheduler(FlowMatchLCMScheduler):
    """diffusers' LCM scheduler on a given ladder, with given noise instead of random draws."""

    def impose(self, ladder: Sequence[float], renoise: Sequence[Tensor]) -> None:
        self.ladder = list(ladder)
        self.renoise = [*renoise, torch.zeros_like(renoise[0])]  # the last is multiplied by zero

    # Some pipelines look for `sigmas` among the parameters.
    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, **_):  # pyright: ignore
        super().set_timesteps(timesteps=self.ladder, device=device)
        self.draws = iter(self.renoise)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        with pytest.MonkeyPatch.context() as patch:
            module = "diffusers.schedulers.scheduling_flow_match_lcm.randn_tensor"
            patch.setattr(module, lambda *_, **__: next(self.draws))
            return super().step(model_output, timestep, sample, generator, return_dict)


def _run_pipeline(
    checkpoint: Path,
    prompt: str,
    clip: ClipSpec,
    picture: Image | None,
    noise: Noise,
    ladder: Sequence[float],
    output_type: str,
    *,
    seen: list[Tensor] | None = None,
    adapter: Path | None = None,
) -> Tensor:
    """Latents (`latent`) or frames (`pt`) of the pipeline; `seen` gets its latents per step."""
    scheduler = LadderScheduler()
    scheduler.impose(ladder, noise.renoise)
    kind = WanPipeline if picture is None else WanImageToVideoPipeline
    pipeline: Any = kind.from_pretrained(checkpoint, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    if adapter is not None:
        pipeline.load_lora_weights(adapter)

    def keep(_pipeline, _step, _timestep, values):
        if seen is not None:
            seen.append(values["latents"])
        return values

    inputs = {} if picture is None else {"image": picture}
    return pipeline(
        prompt=prompt,
        height=clip.height,
        width=clip.width,
        num_frames=clip.frames,
        num_inference_steps=len(ladder),
        guidance_scale=1.0,
        latents=noise.z1,
        output_type=output_type,
        callback_on_step_end=keep,
        **inputs,
    ).frames


@pytest.fixture(scope="session")
def ladder_scheduler():
    """(ladder, re-noise tensors) -> the scheduler that any pipeline can be given."""

    def make(ladder: Sequence[float], renoise: Sequence[Tensor]) -> LadderScheduler:
        scheduler = LadderScheduler()
        scheduler.impose(ladder, renoise)
        return scheduler

    return make


@pytest.fixture(scope="session")
def run_pipeline():
    return _run_pipeline
