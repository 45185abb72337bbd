"""The gradient's directions as an adapter's start, against the exact singular vectors."""

import math
from typing import Any

import pytest
import torch
from diffusers.loaders.peft import PeftAdapterMixin
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from vlmteach.lora import InstanceLora
from vlmteach.lora_init import align, leading_rows

RANK = 2


class Net(nn.Module, PeftAdapterMixin):
    """Two layers, the first of them used twice, and one that the loss does not see."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(12, 12), nn.Linear(12, 6)
        self.to_v = nn.Linear(12, 6)
        self.checkpointed = checkpointed

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.to_k(torch.tanh(self.to_q(torch.tanh(self.to_q(x)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)
        assert isinstance(y, torch.Tensor)
        return y + 0 * self.to_v(x)


def setting(checkpointed=False):
    torch.manual_seed(0)
    net = Net(checkpointed).requires_grad_(False)
    x, weights = torch.randn(3, 5, 12), torch.randn(3, 5, 6)
    exact = {}
    for name in ("to_q", "to_k"):
        weight: Any = net.get_submodule(name).weight
        weight.requires_grad_(True)
        (exact[name],) = torch.autograd.grad((net(x) * weights).sum(), weight)
        weight.requires_grad_(False)
    lora = InstanceLora(net, rank=RANK, alpha=3.0, targets=["to_q", "to_k", "to_v"])
    lora.reset(torch.Generator().manual_seed(1))
    return lora, lambda: (net(x) * weights).sum(), exact


def matrices(lora):
    return {
        slot.name: lora.flat[slot.offset : slot.offset + math.prod(slot.shape)].view(slot.shape)
        for slot in lora.slots
    }


@pytest.mark.parametrize("checkpointed", [False, True])
def test_rows_are_the_leading_right_singular_vectors_of_the_gradient(checkpointed):
    lora, loss, exact = setting(checkpointed)
    before = {name: matrix.clone() for name, matrix in matrices(lora).items()}
    with torch.no_grad():
        base = loss()
    align(lora, loss, torch.Generator().manual_seed(2))
    found = matrices(lora)
    for name, gradient in exact.items():
        rows = found[f"{name}.lora_A.weight"]
        torch.testing.assert_close(rows.norm(dim=1), torch.full((RANK,), 1 / math.sqrt(3)))
        if name == "to_k":  # as many rows in the sketch as the gradient has: nothing is lost
            _, _, right = torch.linalg.svd(gradient)
            cosines = (3**0.5 * rows @ right[:RANK].T).abs()
            torch.testing.assert_close(cosines, torch.eye(RANK), atol=1e-4, rtol=0)
        # What one step on B gives: the share of the gradient that lies in the rows.
        held = (gradient @ rows.T * 3**0.5).square().sum()
        random = before[f"{name}.lora_A.weight"]
        at_random = (gradient @ torch.linalg.qr(random.T)[0]).square().sum()
        best = torch.linalg.svdvals(gradient)[:RANK].square().sum()
        assert held > (0.99 if name == "to_k" else 0.9) * best
        assert at_random < 0.25 * best
        assert not found[f"{name}.lora_B.weight"].any()
    with torch.no_grad():
        assert torch.equal(loss(), base), "the model is still the base"


def test_a_layer_without_gradient_keeps_its_random_rows():
    lora, loss, _ = setting()
    before = matrices(lora)["to_v.lora_A.weight"].clone()
    align(lora, loss, torch.Generator().manual_seed(2))
    assert torch.equal(matrices(lora)["to_v.lora_A.weight"], before)


def test_fewer_directions_than_rows_leave_the_rest():
    one = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 0.0, 0.0]))
    rows = leading_rows(one, 3)
    assert rows.shape == (1, 4)
    torch.testing.assert_close(rows.abs() * 3**0.5, torch.tensor([[0.0, 1, 0, 0]]).double())
    assert leading_rows(torch.zeros(3, 4), 3).shape == (0, 4)
    assert leading_rows(torch.full((3, 4), math.nan), 3).shape == (0, 4)


def test_the_same_draw_gives_the_same_bits_and_leaves_no_trace():
    flats = []
    for _ in range(2):
        lora, loss, _ = setting()
        align(lora, loss, torch.Generator().manual_seed(2))
        flats.append(lora.snapshot())
        assert all(parameter.grad is None for parameter in lora.parameters)
        assert not any(module._forward_hooks for module in lora.network.modules())
    assert torch.equal(*flats)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_checkpointed_block_does_not_keep_its_layers_inputs(checkpointed):
    lora, loss, _ = setting(checkpointed)
    inputs, held = [], []

    def note(_, given):
        if not held:
            inputs.append(StorageWeakRef(given[0].untyped_storage()))

    lora.network.get_submodule("to_k").register_forward_pre_hook(note)

    def watched():
        value = loss()
        held.append([not each.expired() for each in inputs])
        return value

    align(lora, watched, torch.Generator().manual_seed(0))
    assert held == [[not checkpointed]]
