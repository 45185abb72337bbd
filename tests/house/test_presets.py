"""Every preset on disk: read as a user reads it, and built at full size on the meta device."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import AutoConfig, AutoModelForImageTextToText, UMT5Config, UMT5EncoderModel

from benchmarks.full_size import REAL, architecture
from vlmteach import fit, models
from vlmteach.config import Config
from vlmteach.mini.random.taehv import FULL_WIDTHS, save_random_taehv
from vlmteach.reasoners import wan
from vlmteach.reasoners.wan_checkpoint import WanParts
from vlmteach.rollout import gradient_span

ROOT = Path(__file__).parent.parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
FULL_SIZE = [p for p in PRESETS if "builtin:" not in p.read_text()]
PARAMETERS = {"qwen3_vl_4b": 4_437_815_808, "qwen3_vl_8b": 8_767_123_696}
META = torch.device("meta")


def read(preset: Path) -> Config:
    arguments = fit.presets_first(["--instances", "data.tar", "--config", preset.stem])
    cli = fit.parser()
    parsed = cli.instantiate(cli.parse_args(arguments))
    return Config(**{name: getattr(parsed, name) for name in Config.__dataclass_fields__})


def test_all_presets_are_found():
    assert {p.stem for p in PRESETS} == {
        "fastwan22",
        "mini",
        "paper",
        "random",
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
    cli = fit.parser()
    cli.instantiate(cli.parse_args(fit.presets_first(words[3:])))
    config = read(preset)
    gradient_span(config.fit.gradient, len(config.reasoner.ladder))


def test_the_paper_s_numbers_are_those_of_the_paper():
    config = read(ROOT / "configs" / "paper.yaml")
    fields = config.fit
    assert (fields.steps, fields.threshold, fields.learning_rate) == (40, 0.22, 5e-5)
    assert (fields.goal_weight, fields.gradient, fields.keep) == (0.5, "first", "last")
    assert (config.teacher.frames, config.lora.rank, config.clip.frames) == (24, 16, 89)
    assert len(config.reasoner.ladder) == 4


@pytest.mark.parametrize("preset", FULL_SIZE, ids=lambda p: p.stem)
def test_builds_at_full_size_on_the_meta_device(preset, monkeypatch, tmp_path):
    config = read(preset)
    fused = []

    def parts(checkpoint, dtype):
        real = architecture(str(checkpoint))
        with META:
            return WanParts(
                transformer=WanTransformer3DModel(**real["transformer"]),
                vae=AutoencoderKLWan(**real["vae"]),
                text_encoder=UMT5EncoderModel(UMT5Config(**real["text_encoder"])),
                tokenizer=cast(Any, None),
            )

    def teacher(settings, device, checkpointing):
        known = AutoConfig.for_model(**architecture(settings.checkpoint))
        assert known.model_type == settings.family
        with META:
            network = AutoModelForImageTextToText.from_config(known)
        network.tie_weights()
        return SimpleNamespace(network=network)

    surrogate = tmp_path / "taew2_2.safetensors"
    save_random_taehv(surrogate, variant="taew2_2", widths=FULL_WIDTHS["taew2_2"])
    monkeypatch.setattr(wan, "load_parts", parts)
    monkeypatch.setattr(wan, "fuse_lora", lambda network, file: fused.append(file))
    monkeypatch.setattr(models, "_load_teacher", teacher)
    real_resolve = models.resolve
    monkeypatch.setattr(
        models,
        "resolve",
        lambda name: str(surrogate) if name.endswith("taew2_2.safetensors") else real_resolve(name),
    )
    built = cast(Any, models.load(config, META))

    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    adapter = built.lora.flat.numel()
    assert count(built.reasoner.network) - adapter == 4_999_787_712
    assert count(built.reasoner.vae) == 704_688_668
    assert count(built.teacher.network) == PARAMETERS[REAL[config.teacher.checkpoint]]
    assert count(built.decoder.network) == 9_923_532
    assert adapter == 1_474_560 * config.lora.rank
    assert {slot.name for slot in built.lora.slots} == {
        f"blocks.{block}.{attention}.{layer}.lora_{matrix}.weight"
        for block in range(30)
        for attention in ("attn1", "attn2")
        for layer in ("to_q", "to_k", "to_v", "to_out.0")
        for matrix in "AB"
    }
    assert fused == ([config.reasoner.distillation_lora] if preset.stem == "wan22-lora" else [])
