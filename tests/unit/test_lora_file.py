"""A stranger's LoRA file: what is changed is what the file holds, to the last tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.families.networks import WIDTH, tiny_hunyuan, tiny_wan
from vlmteach.reasoners import hunyuan15_names, wan_names
from vlmteach.reasoners.lora_file import fuse_lora
from vlmteach.reasoners.parts import layers_of

RANK = 2
Q = "blocks.0.attn1.to_q.weight"


def layers(network: nn.Module) -> list[str]:
    return list(layers_of(name for name, _ in network.named_parameters()))


@pytest.fixture(scope="module")
def wan() -> Any:
    return tiny_wan()


@pytest.fixture(scope="module")
def hunyuan() -> Any:
    return tiny_hunyuan()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def pair(layer: str, down: str = "lora_A.weight", up: str = "lora_B.weight") -> dict[str, Tensor]:
    return {f"{layer}.{down}": draw(RANK, WIDTH), f"{layer}.{up}": draw(WIDTH, RANK, seed=1)}


PRODUCT = draw(WIDTH, RANK, seed=1) @ draw(RANK, WIDTH)


def changed(
    network: Any,
    state: dict[str, Tensor],
    folder: Path,
    originals: Any = wan_names.originals,
    metadata: dict[str, str] | None = None,
) -> dict[str, Tensor]:
    """Fuses the file and puts the weights back; what was added to each that changed."""
    save_file(state, folder / "lora.safetensors", metadata=metadata)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    try:
        fuse_lora(network, folder / "lora.safetensors", originals(layers(network)))
        after = {name: p.detach().clone() for name, p in network.named_parameters()}
    finally:
        for name, p in network.named_parameters():
            p.data.copy_(before[name])
    return {n: after[n] - before[n] for n in before if not torch.equal(after[n], before[n])}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, change in expected.items():
        torch.testing.assert_close(got[name], change, rtol=1e-4, atol=2e-6, msg=name)


OURS, ORIGINAL = "blocks.0.attn1.to_q", "blocks.0.self_attn.q"
KOHYA = "lora_unet_blocks_0_self_attn_q"


@pytest.mark.parametrize(
    "state",
    [
        pair(f"transformer.{OURS}"),
        pair(OURS),
        pair(ORIGINAL),
        pair(f"diffusion_model.{ORIGINAL}"),
        pair(f"model.diffusion_model.{ORIGINAL}"),
        pair(f"transformer.{OURS}", "lora_down.weight", "lora_up.weight"),
        pair(f"transformer.{ORIGINAL}", "lora_down.weight", "lora_up.weight"),
        pair(f"transformer.{OURS}", "lora.down.weight", "lora.up.weight"),
        pair(f"diffusion_model.{ORIGINAL}", "lora_A.default.weight", "lora_B.default.weight"),
        pair(ORIGINAL, "lora_A.distilled.weight", "lora_B.distilled.weight"),
        pair(f"transformer.{OURS}", "lora_A", "lora_B"),
        pair(KOHYA, "lora_down.weight", "lora_up.weight"),
        pair(KOHYA.replace("unet_", "unet__"), "lora_down.weight", "lora_up.weight"),
        {k: v.to(torch.float64) for k, v in pair(f"dit.{ORIGINAL}").items()},
    ],
    ids=lambda state: next(iter(state)),
)
def test_every_spelling_of_a_pair_is_the_same_change(wan, tmp_path, state):
    assert_same(changed(wan, state, tmp_path), {Q: PRODUCT})


@pytest.mark.parametrize(
    "layer", [f"transformer.{OURS}", f"diffusion_model.{ORIGINAL}", ORIGINAL, KOHYA]
)
@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
@pytest.mark.parametrize(
    "alpha", [torch.tensor(3.0), torch.tensor([3.0], dtype=torch.bfloat16), torch.tensor(3)]
)
def test_alpha_is_obeyed_in_every_style(wan, tmp_path, layer, names, alpha):
    state = pair(layer, *(f"{name}.weight" for name in names)) | {f"{layer}.alpha": alpha}
    assert_same(changed(wan, state, tmp_path), {Q: 3 / RANK * PRODUCT})


NOTES = {"r": RANK, "lora_alpha": 6}


@pytest.mark.parametrize(
    ("notes", "scale"),
    [
        (NOTES, 3.0),
        (NOTES | {"use_rslora": True}, 6 / RANK**0.5),
        (NOTES | {"alpha_pattern": {"blocks.0.attn1.to_q": 1}}, 0.5),
        (NOTES | {"alpha_pattern": {r"^blocks\.0\.attn1\.to_q$": 1}}, 0.5),
        (NOTES | {"alpha_pattern": {"to_k": 1}}, 3.0),
    ],
)
def test_a_noted_scale_is_obeyed(wan, tmp_path, notes, scale):
    header = json.dumps({f"transformer.{name}": value for name, value in notes.items()})
    told = {"lora_adapter_metadata": header}
    ours = changed(wan, pair(f"transformer.{OURS}"), tmp_path, metadata=told)
    assert_same(ours, {Q: scale * PRODUCT})
    # peft's own files have the scale beside them.
    (tmp_path / "adapter_config.json").write_text(json.dumps(notes))
    peft = changed(wan, pair(f"base_model.model.{OURS}"), tmp_path)
    assert_same(peft, {Q: scale * PRODUCT})


def difference_of_all(wan) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """As a file extracted from a whole fine-tune: low rank where that can be, else differences."""
    state, expected = {}, {}
    shapes = {name: p.shape for name, p in wan.named_parameters()}
    for original, (layer,) in wan_names.originals(layers(wan)).items():
        key = f"diffusion_model.{original}"
        weight = layer if layer in shapes else f"{layer}.weight"
        shape = shapes[weight]
        if len(shape) == 2 and layer != "proj_out":
            state[f"{key}.lora_down.weight"] = draw(RANK, shape[1])
            state[f"{key}.lora_up.weight"] = draw(shape[0], RANK, seed=1)
            state[f"{key}.alpha"] = torch.tensor(1.0)
            expected[weight] = 0.5 * draw(shape[0], RANK, seed=1) @ draw(RANK, shape[1])
        else:
            ending = "diff" if original.startswith("head") or len(shape) != 3 else "diff_m"
            name = key.removesuffix(".modulation") if ending == "diff_m" else key
            state[f"{name}.{ending}"] = expected[weight] = draw(*shape)
        if (bias := f"{layer}.bias") in shapes:
            state[f"{key}.diff_b"] = expected[bias] = draw(*shapes[bias], seed=2)
    return state, expected


def test_each_tensor_of_a_whole_difference_is_applied(wan, tmp_path):
    state, expected = difference_of_all(wan)
    assert expected.keys() == {name for name, _ in wan.named_parameters()}
    for name in (
        *("blocks.1.norm3.diff", "blocks.1.norm3.diff_b", "blocks.0.self_attn.norm_q.diff"),
        *("patch_embedding.diff", "patch_embedding.diff_b", "time_projection.1.diff_b"),
        *("blocks.0.diff_m", "head.modulation.diff", "head.head.diff"),
    ):
        assert f"diffusion_model.{name}" in state
    assert_same(changed(wan, state, tmp_path), expected)


@pytest.mark.parametrize(
    ("key", "parameter"),
    [
        ("diffusion_model.blocks.0.modulation.diff", "blocks.0.scale_shift_table"),
        ("diffusion_model.head.diff_m", "scale_shift_table"),
        ("lora_unet_blocks_1_norm3.diff_b", "blocks.1.norm2.bias"),
        ("transformer.blocks.1.norm2.diff", "blocks.1.norm2.weight"),
        ("diffusion_model.time_projection.1.diff_b", "condition_embedder.time_proj.bias"),
        ("diffusion_model.patch_embedding.diff", "patch_embedding.weight"),
    ],
)
def test_a_difference_alone_is_enough(wan, tmp_path, key, parameter):
    change = draw(*wan.get_parameter(parameter).shape)
    assert_same(changed(wan, {key: change}, tmp_path), {parameter: change})


def test_a_bias_is_scaled_with_its_pair_and_a_convolution_may_be_low_rank(wan, tmp_path):
    layer = f"transformer.{OURS}"
    bias = draw(WIDTH)
    state = pair(layer) | {f"{layer}.lora_B.bias": bias, f"{layer}.alpha": torch.tensor(1.0)}
    assert_same(changed(wan, state, tmp_path), {Q: PRODUCT / 2, Q[:-6] + "bias": bias / 2})
    key = "diffusion_model.patch_embedding"
    down, up = draw(RANK, 3, 1, 2, 2), draw(WIDTH, RANK, 1, 1, 1)
    state = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    product = (up.flatten(1) @ down.flatten(1)).view(WIDTH, 3, 1, 2, 2)
    assert_same(changed(wan, state, tmp_path), {"patch_embedding.weight": product})


def test_sums_are_rounded_once_to_the_weights_dtype(wan, tmp_path):
    exact = changed(wan, pair(OURS), tmp_path)[Q] + wan.get_parameter(Q)
    try:
        wan.bfloat16()
        half = wan.get_parameter(Q).detach().clone()
        fused = changed(wan, pair(OURS), tmp_path)[Q] + half
    finally:
        wan.float()
    assert fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), exact.detach(), rtol=2**-7, atol=2**-8)


STATE = pair(f"diffusion_model.{ORIGINAL}")
A, B = STATE


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "with no tensors"),
        (STATE | {f"{A[:-14]}.dora_scale": draw(WIDTH)}, "of DoRA, .*q.dora_scale"),
        (STATE | {f"{A[:-14]}.lora_magnitude_vector": draw(WIDTH)}, "of DoRA"),
        (STATE | {f"{A[:-14]}.lora_mid.weight": draw(2, 2)}, "lora_mid.weight.* all named like"),
        (STATE | {f"{A[:-14]}.set_weight": draw(2, 2)}, "1 of 3 tensors .*set_weight"),
        (STATE | pair("diffusion_model.blocks.0.cross_attn.k_img"), "2 of 4 tensors .*k_img"),
        (STATE | pair("diffusion_model.blocks.9.self_attn.q"), r"2 of 4 tensors .*blocks\.9"),
        (STATE | pair("lora_te_text_model_layers_0_q"), "2 of 4 tensors .*lora_te"),
        (STATE | pair("transformer.blocks.1.attn1.to_q"), "2 of 4 tensors .*no place"),
        (STATE | {"step": torch.ones(1)}, r"1 of 3 tensors .*\(step\)"),
        ({A: STATE[A]}, "without its half .*lora_A"),
        ({B: STATE[B]}, "without its half .*lora_B"),
        ({f"{A[:-14]}.alpha": torch.tensor(1.0)}, "without a low-rank pair .*alpha"),
        (STATE | {f"{A[:-14]}.lora_A.alpha": torch.tensor(1.0)}, "lora_A.alpha"),
        (STATE | {f"{A[:-14]}.alpha": draw(2)}, "no single number"),
        (STATE | {f"{A[:-14]}.alpha": torch.tensor(torch.nan)}, "no single number"),
        (STATE | {f"{A[:-14]}.diff": draw(WIDTH, WIDTH)}, f"for the same {Q}"),
        (STATE | {f"{A[:-14]}.diff_b": draw(WIDTH + 1)}, r"do not fit .*to_q.bias \[24\]"),
        (STATE | {B: draw(WIDTH, RANK + 1)}, "do not fit"),
        (STATE | {A: draw(RANK, WIDTH + 1)}, r"do not fit .*to_q.weight \[24, 24\]"),
        (STATE | {A: draw(WIDTH)}, "do not fit"),
        ({"diffusion_model.patch_embedding.diff": draw(WIDTH, 9, 1, 2, 2)}, "do not fit"),
        # The original's second norm has no weights; diffusers' is its third.
        (STATE | {"diffusion_model.blocks.0.norm2.diff": draw(WIDTH)}, "1 of 3 .*norm2.diff"),
        ({"diffusion_model.blocks.0.self_attn.norm_q.diff_b": draw(WIDTH)}, "expected no .*bias"),
        (STATE | {A: STATE[A] * torch.inf}, "not finite .*lora_A"),
        (STATE | {A: STATE[A].to(torch.int8)}, "of torch.int8"),
        (STATE | {B: STATE[B] * 0}, "all zero"),
        (STATE | pair(f"transformer.{ORIGINAL}"), "for one place"),
        (
            STATE | pair("blocks.1.self_attn.q", "lora_A.other.weight", "lora_B.other.weight"),
            "several adapters",
        ),
        (pair(f"base_model.model.{OURS}"), "peft's keys, expected adapter_config.json"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_nothing_is_changed(wan, tmp_path, state, told):
    before = {name: p.detach().clone() for name, p in wan.named_parameters()}
    with pytest.raises(ValueError, match=told) as refusal:
        changed(wan, state, tmp_path)
    assert str(refusal.value).endswith("take a safetensors LoRA made for this model")
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(p, before[name]) for name, p in wan.named_parameters())


@pytest.mark.parametrize(
    "notes",
    [
        "no json",
        "[]",
        '{"transformer.use_dora": true}',
        '{"transformer.lora_alpha": "many"}',
        '{"transformer.alpha_pattern": {"(a+)+$": 1}}',
        '{"transformer.alpha_pattern": [1]}',
        "[" * 20000,
    ],
)
def test_notes_that_cannot_be_read_are_refused(wan, tmp_path, notes):
    with pytest.raises(ValueError, match="notes of"):
        changed(wan, STATE, tmp_path, metadata={"lora_adapter_metadata": notes})


def test_a_file_that_is_none_is_refused(wan, tmp_path):
    pointer = tmp_path / "pointer.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for file, told in (
        (pointer, "no safetensors file"),
        (tmp_path / "absent.safetensors", "expected an existing"),
        (tmp_path / "pickle.bin", "expected an existing .safetensors"),
        (tmp_path, "expected an existing"),
    ):
        with pytest.raises(ValueError, match=told):
            fuse_lora(wan, file, {})


# HunyuanVideo-1.5: three layers may come as one


def split_and_joint() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    expected, downs, ups = {}, [], []
    for part, name in enumerate("qkv"):
        down, up = draw(RANK, WIDTH, seed=part), draw(WIDTH, RANK, seed=part)
        expected[f"transformer_blocks.1.attn.to_{name}.weight"] = up @ down
        downs.append(down)
        ups.append(up)
    return expected, {"lora_A": torch.cat(downs), "lora_B": torch.block_diag(*ups)}


@pytest.mark.parametrize(
    "layer",
    [
        "diffusion_model.double_blocks.1.img_attn.qkv",
        "diffusion_model.double_blocks.1.img_attn_qkv",
        "transformer.double_blocks.1.img_attn_qkv",
        "lora_unet_double_blocks_1_img_attn_qkv",
    ],
)
def test_a_joint_layer_is_taken_apart(hunyuan, tmp_path, layer):
    expected, joint = split_and_joint()
    state = {f"{layer}.{name}.weight": matrix for name, matrix in joint.items()}
    bias = draw(3 * WIDTH)
    state[f"{layer}.diff_b"] = bias
    for part, name in enumerate("qkv"):
        rows = bias[part * WIDTH : (part + 1) * WIDTH]
        expected[f"transformer_blocks.1.attn.to_{name}.bias"] = rows
    assert_same(changed(hunyuan, state, tmp_path, hunyuan15_names.originals), expected)


@pytest.mark.parametrize(
    ("layer", "parameter"),
    [
        ("diffusion_model.double_blocks.0.txt_attn_v", "attn.add_v_proj"),
        ("diffusion_model.double_blocks.0.txt_attn.proj", "attn.to_add_out"),
        ("diffusion_model.double_blocks.0.img_attn_proj", "attn.to_out.0"),
        ("transformer.transformer_blocks.0.attn.to_k", "attn.to_k"),
    ],
)
def test_layers_that_are_alone_stay_so(hunyuan, tmp_path, layer, parameter):
    got = changed(hunyuan, pair(layer), tmp_path, hunyuan15_names.originals)
    assert_same(got, {f"transformer_blocks.0.{parameter}.weight": PRODUCT})


def test_a_joint_layer_and_one_of_its_three_are_refused(hunyuan, tmp_path):
    _, joint = split_and_joint()
    prefix = "diffusion_model.double_blocks.1.img_attn"
    state = {f"{prefix}.qkv.{name}.weight": matrix for name, matrix in joint.items()}
    with pytest.raises(ValueError, match=r"for the same transformer_blocks\.1\.attn\.to_k"):
        changed(hunyuan, state | pair(f"{prefix}_k"), tmp_path, hunyuan15_names.originals)
