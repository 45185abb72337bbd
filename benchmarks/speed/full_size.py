"""A preset's models at full size with random weights: no checkpoint is read.

On the meta device they take no memory and can be counted; on a GPU they take the memory and the
time of the real ones. `architectures/` holds what the real checkpoints' configs say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.models import Models

ARCHITECTURES = Path(__file__).parent / "architectures"
WAN = "wan22_ti2v_5b"
HUNYUAN = "hunyuan15_480p_i2v"
REAL = {
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": WAN,
    "yetter-ai/Wan2.2-TI2V-5B-Turbo-Diffusers": WAN,
    "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers": WAN,
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": "wan22_i2v_a14b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl_4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl_8b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3_8b",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled": HUNYUAN,
}
"""Checkpoints that presets name -> the architecture they share."""
META = torch.device("meta")


def architecture(checkpoint: str) -> dict[str, Any]:
    """What the configs of a checkpoint say, by name of the part or of the field.

    Raises:
        ValueError: for a checkpoint whose architecture is not known here.
    """
    if checkpoint not in REAL:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, expected one of {', '.join(REAL)}; take a preset "
            "that names real checkpoints, or add the architecture to benchmarks/speed/architectures"
        )
    return json.loads((ARCHITECTURES / f"{REAL[checkpoint]}.json").read_text(encoding="utf-8"))


def build(config: Config, device: torch.device) -> Models:
    """All of a run's models in the dtypes they are loaded in, frozen, with the LoRA attached.

    Text encoders are on the meta device whatever `device` is: an update never uses them.

    Raises:
        ValueError: for a checkpoint whose architecture is not known, or a family that is not built
            here.
    """
    from benchmarks.speed import random_models
    from vlmteach.lora import InstanceLora
    from vlmteach.models import Models, targets_of

    if device.type == "meta" and config.reasoner.family == "hunyuan15":
        raise ValueError(
            "reasoner.family: got 'hunyuan15', which goes by the values of its tensors, expected a "
            "family that can be counted without them; time it on a GPU, or take another preset"
        )
    reasoner = random_models.reasoner(config, architecture(config.reasoner.checkpoint), device)
    lora = InstanceLora(
        reasoner.network,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=targets_of(reasoner, config.lora),
    )
    watching = architecture(config.teacher.checkpoint)
    return Models(
        reasoner=reasoner,
        decoder=random_models.decoder(config, reasoner, device),
        teacher=random_models.teacher(config.teacher, watching, device),
        lora=lora,
    )
