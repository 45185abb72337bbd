"""The teacher's network against the one transformers loads: faster, and the same."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from vlmteach.builtin.paths import builtin_path
from vlmteach.teachers.qwen_network import load_network


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("grid", [(3, 4, 6), (1, 2, 2)], ids=["video", "image"])
def test_vision_tower_is_transformers_own(family, grid):
    path = builtin_path(f"random/{family}")
    ours = load_network(path, family=family, dtype=torch.float64)
    theirs = AutoModelForImageTextToText.from_pretrained(
        path, dtype=torch.float64, attn_implementation="sdpa"
    )
    spec = theirs.config.vision_config
    width = 3 * spec.temporal_patch_size * spec.patch_size**2
    rows = torch.Size(grid).numel()
    patches = torch.randn(
        rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    seen, gradients = [], []
    for network in (theirs, ours):
        x = patches.clone().requires_grad_()
        out = network.model.visual(x, grid_thw=torch.tensor([grid]))
        features = [out.pooler_output, *(getattr(out, "deepstack_features", None) or [])]
        seen.append(torch.cat(features))
        gradients.append(torch.autograd.grad(seen[-1].square().sum(), x)[0])
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-8, atol=1e-10)


def test_qwen3_attends_within_all_temporal_patches_at_once(monkeypatch):
    network = load_network(
        builtin_path("random/qwen3_vl"),
        family="qwen3_vl",
        dtype=torch.float32,
    )
    attend, batches = torch.nn.functional.scaled_dot_product_attention, []

    def watch(query, *others, **named):
        batches.append(query.shape[0])
        return attend(query, *others, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    network.model.visual(torch.zeros(5 * 8, 1536), grid_thw=torch.tensor([[5, 2, 4]]))
    assert batches == [5] * network.config.vision_config.depth
