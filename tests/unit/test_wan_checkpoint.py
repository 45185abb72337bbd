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
from vlmteach.reasoners.wan_checkpoint import load_parts
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
        original = f"diffusion_model.{WanReasoner.comfyui_key(module).layer}"
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


def test_a_lora_that_does_not_fit_is_refused(checkpoint, lora, tmp_path):
    def refused(name: str, old: str, new: str, match: str) -> None:
        path = tmp_path / name
        save_file({k.replace(old, new): v for k, v in load_file(lora).items()}, path)
        with pytest.raises(ValueError, match=match) as caught:
            load(checkpoint, path)
        assert "take a safetensors LoRA made for this model" in str(caught.value)

    refused("deep.safetensors", "blocks.1.", "blocks.9.", "20 of 40 tensors that have no place")
    refused("x.safetensors", "transformer.", "diffusion_model.x.", "40 of 40 tensors")
    refused("lora.bin", "", "", "expected an existing .safetensors")


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
        ("vae/config.json", {"z_dim": 16}, "in_channels of the transformer 48, expected 16"),
        (
            "transformer/config.json",
            {"_class_name": "Other"},
            "transformer 'Other', expected 'WanT.*'",
        ),
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


def test_expand_timesteps_is_inferred_from_the_parts_or_the_remedy_is_told(checkpoint, tmp_path):
    whole = velocity(load(checkpoint))
    silent = edited(checkpoint, tmp_path / "silent", "model_index.json", expand_timesteps=None)
    assert torch.equal(velocity(load(silent)), whole)
    edited(silent, tmp_path / "older", "vae/config.json", is_residual=False)
    for folder in (
        tmp_path / "older",
        edited(checkpoint, tmp_path / "not", "model_index.json", expand_timesteps=False),
    ):
        with pytest.raises(ValueError, match='write "expand_timesteps": true in its model_index'):
            load(folder)


def test_widths_of_an_image_embedding_that_is_not_there_are_not_read(checkpoint, tmp_path):
    widths = {"image_dim": 1280, "added_kv_proj_dim": 5120}
    stray = edited(checkpoint, tmp_path / "stray", "transformer/config.json", **widths)
    assert torch.equal(velocity(load(stray)), velocity(load(checkpoint)))
    file = stray / "transformer" / "diffusion_pytorch_model.safetensors"
    there = "condition_embedder.image_embedder.norm1.weight"
    save_file(load_file(file) | {there: torch.ones(1280)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"1 weights that the network has no place for \({there}"):
        load(stray)


@pytest.mark.parametrize("part", ["transformer/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_no_layer_takes_are_refused(checkpoint, tmp_path, part):
    folder = tmp_path / "more"
    shutil.copytree(checkpoint, folder)
    file = folder / f"{part}.safetensors"
    save_file(load_file(file) | {"extra.weight": torch.ones(1)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the network has no place for \(extra\.weight\)"):
        load(folder)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stored", ["shared.weight", "encoder.embed_tokens.weight"])
def test_the_text_encoder_s_one_embedding_may_be_stored_under_either_name(
    checkpoint, tmp_path, tied, stored
):
    folder = edited(
        checkpoint, tmp_path / "tied", "text_encoder/config.json", tie_word_embeddings=tied
    )
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state[stored] = state.pop("shared.weight")
    save_file(state, file, metadata={"format": "pt"})
    encoder = load_parts(folder, torch.float32, torch.float32).text_encoder
    embedding = encoder.get_input_embeddings().weight  # pyright: ignore
    assert torch.equal(embedding, state[stored])


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
