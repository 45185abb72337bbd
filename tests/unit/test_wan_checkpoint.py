"""What a Wan checkpoint must be, and the LoRA that is fused into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmteach.builtin.wan import save_random_wan, save_random_wan_lora
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.base import Condition
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.types import ClipSpec

CLIP = ClipSpec(frames=5, height=32, width=64, fps=24.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    save_random_wan(folder)
    return folder


@pytest.fixture(scope="module")
def lora(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "distilled.safetensors"
    save_random_wan_lora(path, checkpoint, rank=3)
    return path


def load(checkpoint: Path, lora: Path | None = None) -> WanReasoner:
    return WanReasoner.load(
        checkpoint,
        dtype=torch.float32,
        device=torch.device("cpu"),
        distillation_lora=None if lora is None else str(lora),
    )


def condition(reasoner: WanReasoner) -> Condition:
    return reasoner.encode("p", Image.new("RGB", (CLIP.width, CLIP.height), (90, 20, 30)), CLIP)


def latents(reasoner: WanReasoner) -> torch.Tensor:
    return torch.randn(reasoner.latent_shape(CLIP), generator=torch.Generator().manual_seed(0))


def velocity(reasoner: WanReasoner) -> torch.Tensor:
    return reasoner.velocity(latents(reasoner), 0.7, condition(reasoner))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


# The random checkpoint


def test_random_checkpoint_comes_from_its_seed_alone(tmp_path, checkpoint):
    state = torch.get_rng_state()
    save_random_wan(tmp_path / "again")
    save_random_wan(tmp_path / "other", seed=1, layers=3)
    assert torch.equal(torch.get_rng_state(), state)
    for part in ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        again = load_file(tmp_path / "again" / f"{part}.safetensors")
        for name, tensor in load_file(checkpoint / f"{part}.safetensors").items():
            assert torch.equal(again[name], tensor)
    name = "transformer/diffusion_pytorch_model.safetensors"
    other, base = load_file(tmp_path / "other" / name), load_file(checkpoint / name)
    assert "blocks.2.attn1.to_q.weight" in other
    assert not torch.equal(other["proj_out.weight"], base["proj_out.weight"])


def test_random_checkpoint_has_the_layout_of_the_real_one(checkpoint):
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
    assert index["expand_timesteps"] is True
    files = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert files == {
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        "scheduler/scheduler_config.json",
    }
    assert sum((checkpoint / file).stat().st_size for file in files) < 3e6


# The distillation LoRA


def merged_by_hand(checkpoint: Path, lora: Path, scale: float = 1.0) -> WanReasoner:
    reasoner = load(checkpoint)
    state = load_file(lora)
    with torch.no_grad():
        for key in [key for key in state if key.endswith("lora_A.weight")]:
            weight = key.removeprefix("transformer.").replace("lora_A.", "")
            update = state[key.replace("lora_A", "lora_B")] @ state[key]
            reasoner.network.get_parameter(weight).add_(scale * update)
    return reasoner


def write_original_keys(lora: Path, path: Path, alpha: float) -> None:
    state = {}
    for key, value in load_file(lora).items():
        module, _, matrix = key.removeprefix("transformer.").rpartition(".lora_")
        original = f"diffusion_model.{WanReasoner.comfyui_key(module)}"
        state[f"{original}.lora_{matrix}"] = value
        state[f"{original}.alpha"] = torch.tensor(alpha)
    save_file(state, path)


def test_distillation_lora_is_in_the_weights(checkpoint, lora):
    base, by_hand, fused = (
        load(checkpoint),
        merged_by_hand(checkpoint, lora),
        load(checkpoint, lora),
    )
    expected = velocity(by_hand)
    assert difference(expected, velocity(base)) > 0.1
    assert difference(expected, velocity(fused)) < 1e-5
    assert fused.network.state_dict().keys() == base.network.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in fused.network.parameters())


def test_distillation_lora_may_have_the_original_keys_and_an_alpha(checkpoint, lora, tmp_path):
    original = tmp_path / "original.safetensors"
    write_original_keys(lora, original, alpha=1.5)  # rank 3: half the update
    expected = velocity(merged_by_hand(checkpoint, lora, scale=0.5))
    assert difference(expected, velocity(merged_by_hand(checkpoint, lora))) > 0.05
    assert difference(expected, velocity(load(checkpoint, original))) < 1e-5


def test_instance_lora_goes_on_top_of_a_distillation_lora(checkpoint, lora):
    reasoner = load(checkpoint, lora)
    before = velocity(reasoner)
    adapter = InstanceLora(
        reasoner.network, rank=2, alpha=2.0, targets=reasoner.lora_targets["attention"]
    )
    adapter.reset(torch.Generator().manual_seed(0))
    u = velocity(reasoner)
    assert torch.equal(u, before)
    u.square().sum().backward()
    ups = [p for p, slot in zip(adapter.parameters, adapter.slots, strict=True) if slot.is_b]
    assert len(ups) == 16
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in ups)


def rename(lora: Path, path: Path, old: str, new: str) -> Path:
    save_file({key.replace(old, new): value for key, value in load_file(lora).items()}, path)
    return path


def test_a_lora_that_does_not_fit_is_refused(checkpoint, lora, tmp_path):
    def refused(path: Path, match: str) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            load(checkpoint, path)
        assert "got" in str(caught.value)
        assert "take a safetensors LoRA made for this model" in str(caught.value)

    refused(tmp_path / "absent.safetensors", "expected an existing")
    refused(lora.with_suffix(".bin"), "expected an existing")
    bare = rename(lora, tmp_path / "bare.safetensors", "transformer.", "")
    refused(bare, "20 layers, of which 20 are not")
    deep = rename(lora, tmp_path / "deep.safetensors", "blocks.1.", "blocks.9.")
    refused(deep, "20 layers, of which 10 are not")
    unknown = rename(lora, tmp_path / "unknown.safetensors", "transformer.", "diffusion_model.x.")
    refused(unknown, "cannot read as a LoRA of Wan")
    empty = tmp_path / "empty.safetensors"
    save_file({}, empty)
    refused(empty, "0 layers")
    wide = tmp_path / "wide.safetensors"
    state = {k: torch.cat([v, v], -1) if "lora_A" in k else v for k, v in load_file(lora).items()}
    save_file(state, wide)
    refused(wide, "shapes that do not fit")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not a safetensors file")
    refused(garbage, "cannot read as a LoRA of Wan")


# Refusals


def edited(checkpoint: Path, folder: Path, file: str, **changes) -> Path:
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("file", "changes", "match"),
    [
        ("model_index.json", {"expand_timesteps": False}, "expand_timesteps False, expected True"),
        ("model_index.json", {"boundary_ratio": 0.9}, "boundary_ratio 0.9, expected None"),
        (
            "model_index.json",
            {"transformer_2": ["diffusers", "WanTransformer3DModel"]},
            "transformer_2 .*, expected None",
        ),
        ("transformer/config.json", {"image_dim": 1280}, "image_dim 1280, expected None"),
        ("transformer/config.json", {"in_channels": 36}, "in_channels .* 36, expected 48"),
    ],
)
def test_another_kind_of_checkpoint_is_refused(checkpoint, tmp_path, file, changes, match):
    folder = edited(checkpoint, tmp_path / "edited", file, **changes)
    with pytest.raises(ValueError, match=rf"got '.*edited' with {match}; only the Wan2.2-TI2V-5B"):
        load(folder)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"could not be read .* expected a local folder or a hub"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("part", "weight"),
    [
        ("transformer/diffusion_pytorch_model", "blocks.1.attn1.to_q.weight"),
        ("vae/diffusion_pytorch_model", "decoder.conv_in.weight"),
        ("text_encoder/model", "encoder.final_layer_norm.weight"),
    ],
)
def test_missing_weights_are_refused(checkpoint, tmp_path, part, weight):
    folder = tmp_path / "holed"
    shutil.copytree(checkpoint, folder)
    file = folder / f"{part}.safetensors"
    state = load_file(file)
    del state[weight]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"got 1 weights missing \({weight}\), expected every"):
        load(folder)
