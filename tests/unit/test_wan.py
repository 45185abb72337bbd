"""The Wan reasoner: velocity, refusals, LoRA under and on top, memory fall-backs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from PIL import Image
from safetensors.torch import load_file

from vlmteach.builtin.wan import save_random_wan, save_random_wan_lora
from vlmteach.lora import InstanceLora
from vlmteach.reasoners.wan import WanReasoner
from vlmteach.types import ClipSpec

CPU = torch.device("cpu")
CLIP = ClipSpec(frames=5, height=32, width=64, fps=24.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    save_random_wan(folder)
    return folder


def load(checkpoint: Path, **options) -> WanReasoner:
    options = {"dtype": torch.float32, "device": CPU, **options}
    return WanReasoner.load(checkpoint, **options)


def frame(value: int = 90) -> Image.Image:
    return Image.new("RGB", (CLIP.width, CLIP.height), (value, 255 - value, 30))


def latents(reasoner: WanReasoner, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(reasoner.latent_shape(CLIP), generator=generator)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


# Velocity and condition


def test_velocity_listens_to_prompt_frame_noise_and_level(checkpoint):
    reasoner = load(checkpoint)
    z = latents(reasoner)
    condition = reasoner.encode("move the ball", frame(), CLIP)
    u = reasoner.velocity(z, 1.0, condition)
    assert 0.3 < u.std() < 3
    others = [
        reasoner.velocity(z, 1.0, reasoner.encode("turn the key", frame(), CLIP)),
        reasoner.velocity(z, 1.0, reasoner.encode("move the ball", frame(200), CLIP)),
        reasoner.velocity(z, 1.0, reasoner.encode("move the ball", None, CLIP)),
        reasoner.velocity(latents(reasoner, seed=1), 1.0, condition),
        reasoner.velocity(z, 0.5, condition),
    ]
    assert all(difference(u, other) > 0.02 for other in others)


def test_velocity_does_not_see_what_lies_on_a_given_first_frame(checkpoint):
    reasoner = load(checkpoint)
    z = latents(reasoner)
    condition = reasoner.encode("p", frame(), CLIP)
    z_other = z.clone()
    z_other[:, :, 0] += 1
    u, u_other = (reasoner.velocity(x, 0.7, condition) for x in (z, z_other))
    assert torch.equal(u, u_other)
    text = reasoner.encode("p", None, CLIP)
    assert not torch.equal(*(reasoner.velocity(x, 0.7, text) for x in (z, z_other)))


def test_network_may_be_float64_or_bfloat16_under_float32_latents(checkpoint):
    reasoner = load(checkpoint)
    z = latents(reasoner)
    condition = reasoner.encode("p", frame(), CLIP)
    u = reasoner.velocity(z, 0.7, condition)
    reasoner.network.double()
    double = reasoner.velocity(z.double(), 0.7, condition)
    assert double.dtype == torch.float64
    assert 0 < difference(u, double) < 1e-4
    half = load(checkpoint, dtype=torch.bfloat16)
    assert half.network.get_parameter("blocks.0.scale_shift_table").dtype == torch.float32
    assert half.vae.dtype == torch.float32
    condition = half.encode("p", frame(), CLIP)
    assert condition.first_latent is not None
    assert condition.first_latent.dtype == torch.float32
    coarse = half.velocity(z, 0.7, condition)
    assert coarse.dtype == torch.float32
    assert 0 < difference(u, coarse) < 0.3


def test_everything_is_frozen(checkpoint):
    reasoner = load(checkpoint)
    for module in (reasoner.network, reasoner.vae, reasoner.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


# LoRA


@pytest.mark.parametrize(
    ("targets", "per_block"),
    [("attention", 8), ("self_attention", 4), ("cross_attention", 4), ("all_linear", 10)],
)
def test_lora_targets_and_their_original_names(checkpoint, targets, per_block):
    reasoner = load(checkpoint)
    adapter = InstanceLora(
        reasoner.network, rank=2, alpha=2.0, targets=reasoner.lora_targets[targets]
    )
    modules = {slot.name.rpartition(".lora_")[0] for slot in adapter.slots}
    assert len(modules) == 2 * per_block
    originals = {WanReasoner.comfyui_key(module) for module in modules}
    assert len(originals) == len(modules)


def test_original_names_are_those_that_diffusers_converts_back(checkpoint, tmp_path):
    save_random_wan_lora(tmp_path / "lora.safetensors", checkpoint)
    state = load_file(tmp_path / "lora.safetensors")
    renamed = {
        key.replace(module, f"diffusion_model.{WanReasoner.comfyui_key(module[12:]).layer}"): value
        for key, value in state.items()
        for module in [key.rpartition(".lora_")[0]]
    }
    assert "diffusion_model.blocks.1.ffn.2.lora_A.weight" in renamed
    converted = WanPipeline.lora_state_dict(dict(renamed))
    assert isinstance(converted, dict)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[key], state[key]) for key in state)


@pytest.mark.parametrize("module", ["blocks.0.attn1.norm_q", "proj_out", "blocks.x.attn1.to_q"])
def test_a_module_without_an_original_name_is_refused(module):
    with pytest.raises(ValueError, match=r"got '.*', expected blocks\.N\.X"):
        WanReasoner.comfyui_key(module)


def test_checkpointing_changes_no_bit_of_the_gradient(checkpoint):
    gradients = []
    for checkpointing in (False, True):
        reasoner = load(checkpoint, checkpointing=checkpointing)
        condition = reasoner.encode("p", frame(), CLIP)
        adapter = InstanceLora(
            reasoner.network, rank=2, alpha=2.0, targets=reasoner.lora_targets["attention"]
        )
        adapter.load(0.1 * torch.randn(adapter.flat.shape, generator=torch.Generator()))
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            u = reasoner.velocity(latents(reasoner), 0.7, condition)
        u.square().sum().backward()
        flat = torch.cat([p.grad.flatten() for p in adapter.parameters if p.grad is not None])
        gradients.append((flat, kept))
    (plain, plain_kept), (recomputed, recomputed_kept) = gradients
    assert plain.numel() == 2 * 8 * 2 * (48 + 48)
    assert torch.equal(plain, recomputed)
    assert recomputed_kept < plain_kept / 2


# Refusals


def test_a_kind_of_instance_the_checkpoint_was_not_made_for_is_refused(checkpoint):
    text, image = load(checkpoint, accepts="text"), load(checkpoint, accepts="image")
    assert text.encode("p", None, CLIP).first_latent is None
    assert image.encode("p", frame(), CLIP).first_latent is not None
    with pytest.raises(ValueError, match=r"got an image, expected none: .* text\s+only; take"):
        text.encode("p", frame(), CLIP)
    with pytest.raises(ValueError, match=r"got none, expected an image: .*; give the instance"):
        image.encode("p", None, CLIP)


def test_a_first_frame_of_another_size_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"got 64 x 32 pixels.*expected the clip's 32 x 64; res"):
        load(checkpoint).encode("p", frame().transpose(Image.Transpose.ROTATE_90), CLIP)


@pytest.mark.parametrize(
    ("clip", "match"),
    [
        (ClipSpec(8, 32, 64, 24.0), r"frames: got 8, expected 4 \(t - 1\) \+ 1; .* 5 and 9"),
        (ClipSpec(0, 32, 64, 24.0), r"frames: got 0, .* 1 and 5"),
        (ClipSpec(5, 48, 64, 24.0), r"height: got 48, expected a positive multiple of 32; resize"),
        (ClipSpec(5, 32, 0, 24.0), r"width: got 0, expected a positive multiple of 32; resize"),
    ],
)
def test_a_clip_the_model_cannot_make_is_refused(checkpoint, clip, match):
    with pytest.raises(ValueError, match=match):
        load(checkpoint).latent_shape(clip)


# Memory


def test_decoding_falls_back_to_tiles_when_memory_is_short(checkpoint, monkeypatch, caplog):
    reasoner = load(checkpoint)
    for side in ("height", "width"):  # tiles of 32 pixels, 16 apart
        setattr(reasoner.vae, f"tile_sample_min_{side}", 32)
        setattr(reasoner.vae, f"tile_sample_stride_{side}", 16)
    z0 = latents(reasoner)
    whole = reasoner.decode(z0)
    decode, attempts = reasoner.vae.decode, []

    def short(latent):
        attempts.append(reasoner.vae.use_tiling)
        if not reasoner.vae.use_tiling:
            raise torch.OutOfMemoryError("pretend")
        return decode(latent)

    monkeypatch.setattr(reasoner.vae, "decode", short)
    tiled = reasoner.decode(z0)
    assert attempts == [False, True]
    assert "decoding tiles" in caplog.text
    assert not reasoner.vae.use_tiling  # the next first frame is encoded whole again
    assert tiled.shape == whole.shape
    assert difference(tiled, whole) > 0
    # The top left corner is the first tile's own.
    assert difference(tiled[..., :16, :16], whole[..., :16, :16]) < difference(tiled, whole)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_pass_of_the_vae_that_fails_leaves_no_feature_cache(checkpoint, error, monkeypatch):
    reasoner = load(checkpoint)
    vae: Any = reasoner.vae
    z0 = latents(reasoner)

    def fail(*_):
        raise error("pretend")

    monkeypatch.setattr(vae.decoder.conv_out, "forward", fail)
    monkeypatch.setattr(vae.encoder.conv_out, "forward", fail)
    for use in (lambda: reasoner.decode(z0), lambda: reasoner.encode("move", frame(), CLIP)):
        with pytest.raises(error):
            use()
        assert not any(held is not None for held in vae._feat_map)
        assert not any(held is not None for held in vae._enc_feat_map)
        assert not vae.use_tiling
