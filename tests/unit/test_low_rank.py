"""The adapter's layers against peft's own: values, gradients, and what they pass over."""

from typing import Any

import pytest
import torch
from diffusers.loaders.peft import PeftAdapterMixin
from peft.tuners.lora import Linear
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from vlmteach.lora import InstanceLora

WIDTH, OUT, ROWS = 24, 40, 50


class Net(nn.Module, PeftAdapterMixin):
    def __init__(self, bias):
        super().__init__()
        self.to_q: Any = nn.Linear(WIDTH, OUT, bias=bias)

    def forward(self, x):
        return self.to_q(x)


def adapted(dtype=torch.float32, *, alpha=8.0, rank=4, bias=True, scale=0.1):
    """A network and its adapter, of which B is no longer zero unless `scale` is."""
    torch.manual_seed(0)
    net = Net(bias).to(dtype).requires_grad_(False).eval()
    lora = InstanceLora(net, rank=rank, alpha=alpha, targets=["to_q"])
    lora.reset(torch.Generator().manual_seed(1))
    move = torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(2))
    lora.load(lora.snapshot() + scale * move.to(lora.flat))
    return net, lora


def video(dtype=torch.float32, shape=(2, ROWS // 2, WIDTH)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


def passed(net, lora, x):
    """Output, and the gradients of input and adapter for an uneven loss."""
    lora.load(lora.snapshot())
    x = x.clone().requires_grad_()
    out = net(x)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weight).sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in lora.parameters)]


def by_peft(monkeypatch, net, lora, x):
    with monkeypatch.context() as patch:
        patch.setattr(type(net.to_q), "forward", Linear.forward)
        return passed(net, lora, x)


@pytest.mark.parametrize(
    "shape", [(WIDTH,), (ROWS, WIDTH), (2, 25, WIDTH), (1, 2, 25, WIDTH), (1, 0, WIDTH)]
)
@pytest.mark.parametrize(("alpha", "bias"), [(4.0, True), (8.0, False), (6.0, True)])
def test_float32_is_as_by_peft(monkeypatch, shape, alpha, bias):
    net, lora = adapted(alpha=alpha, bias=bias)
    x = video(shape=shape)
    ours, theirs = passed(net, lora, x), by_peft(monkeypatch, net, lora, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=2e-6)
    assert ours[0].shape == (*shape[:-1], OUT)


def test_rows_that_do_not_lie_together(monkeypatch):
    net, lora = adapted()
    x = video(shape=(2, WIDTH, 7)).transpose(1, 2)
    torch.testing.assert_close(
        passed(net, lora, x), by_peft(monkeypatch, net, lora, x), rtol=1e-6, atol=2e-6
    )


def test_gradient_is_that_of_the_difference_quotient():
    net, lora = adapted(torch.float64)
    x = video(torch.float64)
    _, _, *gradients = passed(net, lora, x)
    start, step = lora.snapshot(), 1e-6
    weight = torch.linspace(-1, 1, ROWS * OUT, dtype=torch.float64)
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(4)).double()
    ends = []
    for sign in (1, -1):
        lora.load(start + sign * step * direction)
        with torch.no_grad():
            ends.append((net(x).flatten() * weight).sum())
    slope = torch.cat([gradient.flatten() for gradient in gradients]) @ direction
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-7, atol=0)


def test_bfloat16_network_is_near_float32(monkeypatch):
    net, lora = adapted(torch.bfloat16)
    x = video(torch.bfloat16)
    ours = passed(net, lora, x)
    exact, exact_lora = adapted()
    exact.to_q.base_layer.load_state_dict(
        {name: tensor.float() for name, tensor in net.to_q.base_layer.state_dict().items()}
    )
    for got, expected in zip(ours, passed(exact, exact_lora, x.float()), strict=True):
        likeness = torch.cosine_similarity(got.float().flatten(), expected.flatten(), dim=0)
        assert likeness > 0.9999
    assert ours[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in ours[2:]} == {torch.float32}


class Float32(TorchDispatchMode):
    """Remembers the largest float32 tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        sizes = [t.numel() for t in made if t.dtype == torch.float32]
        self.largest = max([self.largest, *sizes])
        return out


def test_no_float32_tensor_of_the_videos_size_on_a_bfloat16_network():
    net, lora = adapted(torch.bfloat16)
    x = video(torch.bfloat16)
    with Float32() as seen:
        passed(net, lora, x)
    assert 0 < seen.largest <= lora.flat.numel() < x.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_bitwise(dtype):
    net, lora = adapted(dtype, scale=0)
    x = video(dtype)
    with lora.disabled():
        base = net(x)
    assert torch.equal(net(x), base)


def test_merged_by_peft_it_is_the_same_layer():
    net, _ = adapted()
    x, weight = video(), net.to_q.base_layer.weight.clone()
    out = net(x).detach()
    net.to_q.merge()
    torch.testing.assert_close(net(x), out, rtol=1e-5, atol=1e-5)
    net.to_q.unmerge()
    torch.testing.assert_close(net.to_q.base_layer.weight, weight)
    torch.testing.assert_close(net(x), out, rtol=1e-5, atol=1e-5)


def test_recomputed_in_the_backward_pass_it_has_the_same_gradients():
    net, lora = adapted(torch.bfloat16)
    x = video(torch.bfloat16)
    kept = passed(net, lora, x)
    recomputed = passed(lambda x: checkpoint(net, x, use_reentrant=False), lora, x)
    assert all(map(torch.equal, kept, recomputed))


def test_under_autocast_too():
    net, _ = adapted()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(video())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), net(video()), rtol=0.05, atol=0.05)
