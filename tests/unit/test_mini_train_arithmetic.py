"""What a recipe trains in: bfloat16 only on processors that have it."""

import pytest
import torch

from benchmarks.mini.train import arithmetic as room
from benchmarks.mini.train.manifest import Manifest
from benchmarks.mini.train.orthogonal import orthogonalised

# What `torch.cpu.get_capabilities` says of a laptop's processor and of two servers'.
PROCESSORS = {
    "laptop": {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "l2_cache_size": 524288},
    "server": {"avx2": True, "avx512_bf16": True, "amx_bf16": False},
    "arm": {"neon": True, "bf16": True},
}


@pytest.fixture(params=PROCESSORS)
def dtype(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: PROCESSORS[request.param])
    return torch.float32 if request.param == "laptop" else torch.bfloat16


def test_products_are_in_it_and_weights_are_not(dtype):
    layer = torch.nn.Linear(4, 4)
    with room.quick_arithmetic():
        made = layer(torch.randn(2, 4))
    assert room.arithmetic() == made.dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_steps_too(dtype):
    """Of 24 bits where there are 24: the rounding of bfloat16 would be seen."""
    matrix = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    made = orthogonalised(matrix)
    assert made.dtype == torch.float32
    assert torch.equal(made, made.bfloat16().float()) == (dtype == torch.bfloat16)


def test_the_manifest_says_which(dtype, tmp_path):
    manifest = Manifest(tmp_path, 0)
    with manifest.piece("autoencoder", 1):
        pass
    told = Manifest(tmp_path, 0).stages["autoencoder"]["arithmetic"]
    assert told == str(dtype).removeprefix("torch.")


def test_nowhere_else_is_it_spelt_out():
    from pathlib import Path

    for file in Path(room.__file__).parent.rglob("*.py"):
        if file.name != "arithmetic.py":
            assert 'autocast("cpu", torch.bfloat16' not in file.read_text(), file
