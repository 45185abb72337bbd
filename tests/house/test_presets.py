"""Every preset on disk: read as a user reads it, and built at full size on the meta device."""

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.families import ReasonerCase, cases
from vlmteach import fit, models
from vlmteach.builtin.taehv import FULL_WIDTHS, save_random_taehv
from vlmteach.config import Config
from vlmteach.families import DECODERS, REASONERS, TEACHERS
from vlmteach.options import parse, read_config
from vlmteach.plan.known import REAL, architecture
from vlmteach.rollout import gradient_span

ROOT = Path(__file__).parent.parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
FULL_SIZE = [
    path
    for path in PRESETS
    if not read_config(["--config", path.stem]).reasoner.checkpoint.startswith("builtin:")
]
META = torch.device("meta")


def read(preset: Path) -> Config:
    return read_config(["--config", preset.stem])


def test_all_presets_are_found():
    assert {p.stem for p in PRESETS} >= {
        "fastwan22",
        "hunyuan15",
        "mini",
        "mini-fast",
        "paper",
        "random",
        "wan22-a14b",
        "wan22-fast",
        "wan22-internvl",
        "wan22-lora",
        "wan22-qwen25",
        "wan22-turbo",
        "wan22-turbo-even-ladder",
    }
    assert {p.stem for p in set(PRESETS) - set(FULL_SIZE)} == {"mini", "mini-fast", "random"}


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


def test_every_family_is_named_by_a_preset_of_full_size():
    configs = [read(preset) for preset in FULL_SIZE]
    assert {config.reasoner.family for config in configs} == set(REASONERS)
    assert {config.teacher.family for config in configs} == set(TEACHERS)
    # `full` needs no preset: it is built beside each of these reasoners below.
    assert {config.decoder.family for config in configs} == set(DECODERS)


@pytest.mark.parametrize("preset", FULL_SIZE, ids=lambda p: p.stem)
def test_builds_at_full_size_on_the_meta_device(preset, monkeypatch, tmp_path):
    config = read(preset)
    fused: list[str] = []

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
    case: ReasonerCase = cases("reasoner")[config.reasoner.family]
    case.on_meta(monkeypatch, fused)
    monkeypatch.setattr(models, "load_teacher", teacher)
    on_disk = replace(config, decoder=replace(config.decoder, checkpoint=str(surrogate)))
    monkeypatch.setattr(models, "find_all", lambda _: on_disk)
    built = cast(Any, models.load(config, META))

    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    adapter = built.lora.flat.numel()
    expected = case.full_size
    parameters = cases("teacher")[config.teacher.family].full_size
    assert count(built.reasoner.network) - adapter == expected.transformer
    assert count(built.reasoner.vae) == expected.vae
    assert count(built.teacher.network) == parameters[REAL[config.teacher.checkpoint]]
    assert count(built.decoder.network) == expected.surrogate
    layers, blocks = set(expected.layers), config.lora.blocks
    if blocks is not None:
        numbers = {layer: int(layer.split(".")[1]) for layer in layers}
        first = max(numbers.values()) + 1 - blocks
        layers = {layer for layer, number in numbers.items() if number >= first}
    share = len(layers) / len(expected.layers)  # blocks are alike
    assert adapter == expected.adapter * config.lora.rank * share
    assert {slot.name for slot in built.lora.slots} == {
        f"{layer}.lora_{matrix}.weight" for layer in layers for matrix in "AB"
    }
    lora = config.reasoner.distillation_lora
    assert fused == ([] if lora is None else case.fused(lora))
    assert built.reasoner.full_decoder(checkpointing=False).facts == built.decoder.facts


def test_which_presets_fuse_a_distillation():
    with_lora = {p.stem for p in FULL_SIZE if read(p).reasoner.distillation_lora is not None}
    assert with_lora == {"wan22-lora", "wan22-a14b"}
