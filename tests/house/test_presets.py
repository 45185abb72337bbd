"""Every preset on disk: read as a user reads it, and built at full size on the meta device."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
)
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15Transformer3DModel,
)
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    SiglipVisionConfig,
    SiglipVisionModel,
    UMT5Config,
    UMT5EncoderModel,
)

from benchmarks.speed.full_size import REAL, architecture
from vlmteach import fit, models
from vlmteach.builtin.taehv import FULL_WIDTHS, save_random_taehv
from vlmteach.config import Config
from vlmteach.options import parse, read_config
from vlmteach.reasoners import hunyuan15, wan, wan_a14b
from vlmteach.reasoners.hunyuan15_checkpoint import HunyuanParts
from vlmteach.reasoners.wan_checkpoint import WanParts
from vlmteach.rollout import gradient_span

ROOT = Path(__file__).parent.parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
FULL_SIZE = [p for p in PRESETS if "builtin:" not in p.read_text()]
PARAMETERS = {
    "qwen3_vl_4b": 4_437_815_808,
    "qwen3_vl_8b": 8_767_123_696,
    "internvl3_8b": 7_944_373_760,
}
META = torch.device("meta")


@dataclass(frozen=True)
class Expected:
    """Parameters of a reasoner's parts at full size, and the layers its adapter sits on."""

    transformer: int
    vae: int
    surrogate: int
    adapter: int
    """Of the adapter on `attention`, per rank."""
    layers: set[str]


REASONERS = {
    "wan": Expected(
        transformer=4_999_787_712,
        vae=704_688_668,
        surrogate=9_923_532,
        adapter=1_474_560,
        layers={
            f"blocks.{block}.{attention}.{layer}"
            for block in range(30)
            for attention in ("attn1", "attn2")
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
        },
    ),
    "wan_a14b": Expected(
        transformer=14_288_901_184,
        vae=126_892_531,
        surrogate=9_844_611,
        adapter=3_276_800,
        layers={
            f"blocks.{block}.{attention}.{layer}"
            for block in range(40)
            for attention in ("attn1", "attn2")
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
        },
    ),
    "hunyuan15": Expected(
        transformer=8_331_330_848,
        vae=1_260_634_115,
        surrogate=9_886_668,
        adapter=1_761_280,
        layers={
            f"transformer_blocks.{block}.attn.{layer}"
            for block in range(54)
            for layer in (
                *("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
                # The last block's text output is thrown away.
                *(("add_q_proj", "to_add_out") if block < 53 else ()),
            )
        },
    ),
}


def read(preset: Path) -> Config:
    return read_config(["--config", preset.stem])


def test_all_presets_are_found():
    assert {p.stem for p in PRESETS} == {
        "fastwan22",
        "hunyuan15",
        "mini",
        "paper",
        "random",
        "wan22-a14b",
        "wan22-internvl",
        "wan22-lora",
        "wan22-turbo",
        "wan22-turbo-even-ladder",
    }
    assert len(FULL_SIZE) == len(PRESETS) - 2


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_opens_with_a_command_that_takes_it(preset):
    lines = preset.read_text().splitlines()
    command = lines[0].removeprefix("# ")
    if command.endswith("\\"):
        command = command[:-1] + lines[1].removeprefix("# ")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "vlmteach.fit"]
    assert words[words.index("--config") + 1] == preset.stem
    parse(fit.parser(), words[3:])
    config = read(preset)
    gradient_span(config.fit.gradient, len(config.reasoner.ladder))


def test_the_paper_s_numbers_are_those_of_the_paper():
    config = read(ROOT / "configs" / "paper.yaml")
    fields = config.fit
    assert (fields.steps, fields.threshold, fields.learning_rate) == (40, 0.22, 5e-5)
    assert (fields.goal_weight, fields.gradient, fields.keep) == (0.5, "first", "last")
    assert (config.teacher.frames, config.lora.rank, config.clip.frames) == (24, 16, 89)
    assert len(config.reasoner.ladder) == 4


def wan_parts(checkpoint, dtype):
    real = architecture(str(checkpoint))
    with META:
        return WanParts(
            transformer=WanTransformer3DModel(**real["transformer"]),
            vae=AutoencoderKLWan(**real["vae"]),
            text_encoder=UMT5EncoderModel(UMT5Config(**real["text_encoder"])),
            tokenizer=cast(Any, None),
        )


def wan_a14b_experts(checkpoint, dtype, carrier):
    assert carrier == "high_noise"
    with META:
        other = WanTransformer3DModel(**architecture(str(checkpoint))["transformer"])
    return wan_parts(checkpoint, dtype), other


def hunyuan15_parts(checkpoint, dtype):
    real = architecture(str(checkpoint))
    with META:
        return HunyuanParts(
            transformer=HunyuanVideo15Transformer3DModel(**real["transformer"]),
            vae=AutoencoderKLHunyuanVideo15(**real["vae"]),
            text_encoder=None,
            tokenizer=None,
            glyph_encoder=None,
            glyph_tokenizer=None,
            image_encoder=SiglipVisionModel(SiglipVisionConfig(num_hidden_layers=1)),
            image_processor=None,
        )


@pytest.mark.parametrize("preset", FULL_SIZE, ids=lambda p: p.stem)
def test_builds_at_full_size_on_the_meta_device(preset, monkeypatch, tmp_path):
    config = read(preset)
    fused = []

    def teacher(settings, device, checkpointing):
        known = AutoConfig.for_model(**architecture(settings.checkpoint))
        assert known.model_type == settings.family
        with META:
            network = AutoModelForImageTextToText.from_config(known)
        network.tie_weights()
        return SimpleNamespace(network=network)

    assert config.decoder.checkpoint is not None
    surrogate = tmp_path / Path(config.decoder.checkpoint).name
    variant: Any = surrogate.stem
    save_random_taehv(surrogate, variant=variant, widths=FULL_WIDTHS[variant])
    monkeypatch.setattr(wan, "load_parts", wan_parts)
    monkeypatch.setattr(wan_a14b, "load_experts", wan_a14b_experts)
    monkeypatch.setattr(wan_a14b, "boundary_of", lambda checkpoint: 900.0)
    monkeypatch.setattr(hunyuan15, "load_parts", hunyuan15_parts)
    for room in (wan, wan_a14b):
        monkeypatch.setattr(room, "fuse_lora", lambda network, file: fused.append(str(file)))
    monkeypatch.setattr(models, "load_teacher", teacher)
    real_resolve = models.resolve
    monkeypatch.setattr(
        models,
        "resolve",
        lambda name: str(surrogate) if name == config.decoder.checkpoint else real_resolve(name),
    )
    built = cast(Any, models.load(config, META))

    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    adapter = built.lora.flat.numel()
    expected = REASONERS[config.reasoner.family]
    assert count(built.reasoner.network) - adapter == expected.transformer
    assert count(built.reasoner.vae) == expected.vae
    assert count(built.teacher.network) == PARAMETERS[REAL[config.teacher.checkpoint]]
    assert count(built.decoder.network) == expected.surrogate
    assert adapter == expected.adapter * config.lora.rank
    assert {slot.name for slot in built.lora.slots} == {
        f"{layer}.lora_{matrix}.weight" for layer in expected.layers for matrix in "AB"
    }
    lora = config.reasoner.distillation_lora
    assert fused == {
        "wan22-lora": [lora],
        "wan22-a14b": [
            f"{lora}/{expert}_model.safetensors" for expert in ("high_noise", "low_noise")
        ],
    }.get(preset.stem, [])
