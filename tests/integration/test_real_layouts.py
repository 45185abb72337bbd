"""Folders made like the repositories that presets name, small and with their warts: to a clip.

What is known of each stands beside it. No socket is opened on the way.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.families.networks import as_published
from vlmteach import cli, models
from vlmteach.adapter_notes import read_notes
from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
from vlmteach.builtin.internvl import save_random_internvl
from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl, save_random_qwen3_vl
from vlmteach.builtin.taehv import Variant, save_random_taehv
from vlmteach.builtin.wan import save_random_wan, save_random_wan_a14b, save_random_wan_lora
from vlmteach.methods import Resources, carry_out, load_method
from vlmteach.methods.kept_adapter import KeptAdapter
from vlmteach.options import read_config
from vlmteach.reasoners.parts import layers_of
from vlmteach.reasoners.wan_names import originals
from vlmteach.types import Instance
from vlmteach.video import read_video

FILE = "diffusion_pytorch_model.safetensors"
SMALL = ["--clip.frames=5", "--clip.max_pixels=4096", "--teacher.frames=4", "--lora.rank=2"]
SMALL += ["--fit.steps=1", "--run.base_video=false", "--query.source=generic"]


def edit(file: Path, gone: tuple[str, ...] = (), **changes: object) -> None:
    config = json.loads(file.read_text())
    kept = {name: value for name, value in config.items() if name not in gone}
    file.write_text(json.dumps({**kept, **changes}))


def shard(folder: Path, stem: str) -> None:
    """One weights file in two and an index, as large ones are saved."""
    whole = folder / f"{stem}.safetensors"
    state = load_file(whole)
    placed = {}
    for number in (1, 2):
        name = f"{stem}-0000{number}-of-00002.safetensors"
        part = dict(list(state.items())[number - 1 :: 2])
        save_file(part, folder / name, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": placed}
    (folder / f"{whole.name}.index.json").write_text(json.dumps(index))
    whole.unlink()


def wan(folder: Path) -> Path:
    """Wan-AI/Wan2.2-TI2V-5B-Diffusers: shards; a text encoder whose config says its embeddings are
    not tied, though they are, and the file holds one of the two."""
    save_random_wan(folder)
    edit(folder / "text_encoder" / "config.json", tie_word_embeddings=False)
    shard(folder / "transformer", FILE.removesuffix(".safetensors"))
    shard(folder / "text_encoder", "model")
    return folder


def yetter(folder: Path) -> list[object]:
    """yetter-ai/Wan2.2-TI2V-5B-Turbo-Diffusers: as Wan's, an index without expand_timesteps."""
    edit(wan(folder) / "model_index.json", ("expand_timesteps",))
    return ["--reasoner.checkpoint", folder]


def quanhaol(folder: Path) -> list[object]:
    """quanhaol/Wan2.2-TI2V-5B-Turbo: one pickle in float32 by FSDP, and nothing else; through
    `convert`, with a base of another transformer."""
    other = folder.parent / "trained"
    save_random_wan(other, seed=1)
    state = as_published(load_file(other / "transformer" / FILE))
    saved = {f"model._fsdp_wrapped_module.{name}": tensor for name, tensor in state.items()}
    torch.save(saved, folder.parent / "model.pt")
    base = wan(folder.parent / "base")
    words = ["convert", folder.parent / "model.pt", "--base", base, "--out", folder]
    assert cli.main([str(word) for word in words]) == 0
    return ["--reasoner.checkpoint", folder]


def distilled(folder: Path) -> list[object]:
    """Wan's base and a LoRA in the manner of Kijai/WanVideo_comfy: low rank beside differences."""
    save_random_wan(folder)
    save_random_wan_lora(folder.parent / "ours.safetensors", folder)
    state = {}
    weights = load_file(folder / "transformer" / FILE)
    names = {ours: theirs for theirs, (ours,) in originals(layers_of(weights)).items()}
    for key, matrix in load_file(folder.parent / "ours.safetensors").items():
        layer, _, half = key.removeprefix("transformer.").rpartition(".lora_")
        half = {"A.weight": "down", "B.weight": "up"}[half]
        state[f"diffusion_model.{names[layer]}.lora_{half}.weight"] = matrix
        state[f"diffusion_model.{names[layer]}.alpha"] = torch.tensor(4.0)
    for name, ending in (
        ("blocks.0.scale_shift_table", ".diff_m"),
        ("blocks.0.norm2.weight", ".diff"),
        ("blocks.0.norm2.bias", ".diff_b"),
        ("patch_embedding.weight", ".diff"),
    ):
        (layer,) = layers_of([name])
        theirs = names[layer].removesuffix(".modulation")
        state[f"diffusion_model.{theirs}{ending}"] = 0.01 * torch.ones_like(weights[name])
    file = folder.parent / "distillation.safetensors"
    save_file(state, file)
    return ["--reasoner.checkpoint", folder, "--reasoner.distillation_lora", file]


def fastvideo(folder: Path) -> list[object]:
    """FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers: a pipeline of another library, and Wan2.1's
    widths of an image embedding in the transformer's config, as the first uploads of Wan2.2 had."""
    save_random_wan(folder)
    edit(folder / "model_index.json", ("expand_timesteps",), _class_name="WanDMDPipeline")
    config = folder / "transformer" / "config.json"
    edit(config, image_dim=1280, added_kv_proj_dim=5120)
    return ["--reasoner.checkpoint", folder]


def a14b(folder: Path) -> list[object]:
    """Wan-AI/Wan2.2-I2V-A14B-Diffusers with lightx2v/Wan2.2-Lightning: kohya's halves."""
    save_random_wan_a14b(folder)
    lightning = folder.parent / "lightning"
    lightning.mkdir()
    for expert in ("high_noise", "low_noise"):
        file = lightning / f"{expert}_model.safetensors"
        save_random_wan_lora(file, folder)
        halves = {".lora_A.": ".lora_down.", ".lora_B.": ".lora_up."}
        state = {}
        for key, matrix in load_file(file).items():
            for ours, theirs in halves.items():
                key = key.replace(ours, theirs)
            state[key] = matrix
        save_file(state, file)
    return ["--reasoner.checkpoint", folder, "--reasoner.distillation_lora", lightning]


def hunyuan(folder: Path) -> list[object]:
    """hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled: a mean-flow model;
    its text encoder's config in the words of transformers 4."""
    save_random_hunyuan15(folder, mean_flow=True)
    config = folder / "text_encoder" / "config.json"
    rope = json.loads(config.read_text())["rope_parameters"]
    old = {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    edit(config, ("rope_parameters",), **old)
    return ["--reasoner.checkpoint", folder]


Maker = Callable[[Path], list[object]]
JOURNEYS: dict[str, tuple[Maker, Variant, Callable[..., None]]] = {
    "wan22-qwen25": (yetter, "taew2_2", save_random_qwen2_5_vl),
    "wan22-internvl": (quanhaol, "taew2_2", save_random_internvl),
    "wan22-lora": (distilled, "taew2_2", save_random_qwen3_vl),
    "fastwan22": (fastvideo, "taew2_2", save_random_qwen3_vl),
    "wan22-a14b": (a14b, "taew2_1", save_random_qwen3_vl),
    "hunyuan15": (hunyuan, "taehv1_5", save_random_qwen3_vl),
}
"""Preset -> what its reasoner, its surrogate and its teacher are made like."""


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("preset", JOURNEYS)
def test_from_a_folder_like_the_repository_to_a_clip(tmp_path, preset):
    make, surrogate, save_teacher = JOURNEYS[preset]
    words = make(tmp_path / "reasoner")
    save_random_taehv(tmp_path / f"{surrogate}.safetensors", variant=surrogate)
    save_teacher(tmp_path / "teacher")
    words += ["--decoder.checkpoint", tmp_path / f"{surrogate}.safetensors"]
    words += ["--teacher.checkpoint", tmp_path / "teacher", "--config", preset]
    config = read_config([*map(str, words), *SMALL])
    resources = Resources(config, models.load(config, torch.device("cpu")), {})
    picture = None if config.reasoner.accepts == "text" else Image.new("RGB", (64, 64), "teal")
    instance = Instance("task", "Move the disc to the right.", picture, digest="0")
    out = tmp_path / "out"
    out.mkdir()
    outcome = carry_out(load_method("micro_fit", resources), resources, instance, out)
    frames, fps = read_video(out / "clip.mp4")
    assert len(frames) == 5
    assert fps == config.clip.fps
    assert outcome.steps == 1
    rungs = len(config.reasoner.ladder)  # two readings, and the other rungs of the clip
    assert outcome.compute.reasoner_forwards == 2 + rungs - 1
    assert {"adapter.safetensors", "adapter.comfyui.safetensors"} <= {p.name for p in out.iterdir()}
    notes = read_notes(out / "adapter.safetensors")
    assert notes["vlmteach.base"] == Path(config.reasoner.checkpoint).name
    assert notes.get("vlmteach.base_licence") == config.reasoner.licence
    part = "high_noise" if preset == "wan22-a14b" else None
    assert notes.get("vlmteach.base_part") == part
    fused = config.reasoner.distillation_lora
    assert notes.get("vlmteach.distillation_lora") == (fused and Path(fused).name)
    method = KeptAdapter(out, 1.0, None)
    (tmp_path / "again").mkdir()
    carry_out(method, resources, instance, tmp_path / "again")
    assert (tmp_path / "again" / "clip.mp4").read_bytes() == (out / "clip.mp4").read_bytes()
    shutil.rmtree(tmp_path)
