import os

import pytest
import torch
from diffusers.loaders.peft import PeftAdapterMixin
from safetensors.torch import load_file, save_file
from torch import nn

from vlmteach.lora import InstanceLora
from vlmteach.reasoners.base import Place


class Net(nn.Module, PeftAdapterMixin):
    """Two linear layers that diffusers lets carry an adapter."""

    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(6, 5)
        self.to_k = nn.Linear(5, 4)

    def forward(self, x):
        return self.to_k(self.to_q(x).tanh())


def frozen_net(dtype=torch.float32):
    torch.manual_seed(0)
    return Net().to(dtype).requires_grad_(False).eval()


def lora_on(net, alpha=4.0, rank=2):
    return InstanceLora(net, rank=rank, alpha=alpha, targets=["to_q", "to_k"])


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def train(net, lora, steps=3):
    optimizer = torch.optim.AdamW(lora.parameters, lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()


def test_fresh_adapter_changes_nothing_and_only_lora_trains():
    net = frozen_net()
    x = torch.randn(3, 6, generator=generator())
    before = net(x)
    lora = lora_on(net)
    lora.reset(generator())
    assert torch.equal(net(x), before)
    trainable = {n for n, p in net.named_parameters() if p.requires_grad}
    assert trainable == {
        f"{layer}.lora_{m}.instance.weight" for layer in ("to_q", "to_k") for m in "AB"
    }


def test_training_moves_the_flat_buffer_and_nothing_else():
    net = frozen_net()
    lora = lora_on(net)
    lora.reset(generator())
    base = {n: p.clone() for n, p in net.named_parameters() if ".lora_" not in n}
    start = lora.snapshot()
    train(net, lora)
    assert not torch.equal(lora.flat, start)
    after = {n: p for n, p in net.named_parameters() if ".lora_" not in n}
    assert all(torch.equal(after[n], p) for n, p in base.items())


def test_reset_equals_a_freshly_attached_adapter_bitwise():
    used = frozen_net()
    lora = lora_on(used)
    lora.reset(generator(7))
    train(used, lora)
    lora.reset(generator(3))
    fresh_net = frozen_net()
    fresh = lora_on(fresh_net)
    fresh.reset(generator(3))
    assert torch.equal(lora.flat, fresh.flat)
    train(used, lora)
    train(fresh_net, fresh)
    assert torch.equal(lora.flat, fresh.flat)


def test_reset_drops_gradients():
    net = frozen_net()
    lora = lora_on(net)
    train(net, lora, steps=1)
    lora.reset(generator())
    assert all(p.grad is None for p in lora.parameters)


def test_snapshot_and_load_are_bitwise():
    net = frozen_net()
    lora = lora_on(net)
    lora.reset(generator())
    train(net, lora)
    kept, x = lora.snapshot(), torch.ones(1, 6)
    out = net(x)
    train(net, lora)
    assert not torch.equal(net(x), out)
    lora.load(kept)
    assert torch.equal(net(x), out)


def trained():
    """A network with a trained adapter, an input, and what the base makes of it."""
    net = frozen_net()
    x = torch.ones(1, 6)
    base = net(x)
    lora = lora_on(net)
    lora.reset(generator())
    train(net, lora)
    return net, lora, x, base


def test_disabled_is_the_base_model_and_training_goes_on_after():
    net, lora, x, base = trained()
    with lora.disabled():
        assert lora.is_base()
        assert torch.equal(net(x), base)
    assert not lora.is_base()
    assert not torch.equal(net(x), base)
    before = lora.snapshot()
    train(net, lora)
    assert not torch.equal(lora.flat, before)


def test_a_starts_within_its_bound_and_b_at_zero():
    lora = lora_on(frozen_net(), rank=64)
    lora.reset(generator())
    assert lora.is_base()
    for slot, parameter in zip(lora.slots, lora.parameters, strict=True):
        if slot.is_b:
            assert parameter.abs().max() == 0
        else:
            bound = slot.shape[1] ** -0.5
            assert 0.9 * bound < parameter.abs().max() <= bound


def test_export_folds_the_scale_into_b_and_names_both_styles(tmp_path):
    net = frozen_net()
    lora = lora_on(net, alpha=6.0, rank=2)
    lora.reset(generator())
    train(net, lora)
    lora.export(tmp_path / "d", tmp_path / "c", lambda name: Place(name.removeprefix("to_")), {})
    diffusers, comfyui = load_file(tmp_path / "d"), load_file(tmp_path / "c")
    assert set(diffusers) == {
        f"transformer.{n}.lora_{m}.weight" for n in ("to_q", "to_k") for m in "AB"
    }
    assert set(comfyui) == {
        f"diffusion_model.{n}.lora_{m}.weight" for n in ("q", "k") for m in "AB"
    }
    x = torch.ones(1, 6)
    hidden = x
    for layer, name in ((net.to_q, "to_q"), (net.to_k, "to_k")):
        a, b = (diffusers[f"transformer.{name}.lora_{m}.weight"] for m in "AB")
        base = layer.get_submodule("base_layer")
        assert isinstance(base, nn.Linear)
        hidden = nn.functional.linear(hidden, base.weight + b @ a, base.bias)
        hidden = hidden.tanh() if name == "to_q" else hidden
    torch.testing.assert_close(hidden, net(x))


def test_bfloat16_base_keeps_a_float32_adapter():
    net = frozen_net(torch.bfloat16)
    lora = lora_on(net)
    assert lora.flat.dtype == torch.float32
    assert {p.dtype for p in lora.parameters} == {torch.float32}


def test_refuses_a_network_that_is_not_frozen():
    net = frozen_net()
    net.to_k.bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"got 1 trainable parameters \(to_k.bias"):
        lora_on(net)


def exported(lora, path):
    lora.export(path, path.with_suffix(".comfyui"), Place, {})
    return path


def test_a_file_brings_the_adapter_back_bitwise(tmp_path):
    net = frozen_net()
    lora = lora_on(net, alpha=8.0, rank=2)
    lora.reset(generator())
    train(net, lora)
    kept, file = lora.snapshot(), exported(lora, tmp_path / "adapter.safetensors")
    lora.reset(generator(2))
    lora.load_file(file)
    assert torch.equal(lora.flat, kept)


def test_a_file_is_scaled_and_at_0_it_is_the_base_model(tmp_path):
    net, lora, x, base = trained()
    file, out = exported(lora, tmp_path / "adapter.safetensors"), net(x)
    slots = {slot.name: (slot.offset, slot.shape) for slot in lora.slots}
    offset, (rows, columns) = slots["to_q.lora_B.weight"]
    kept = lora.flat[offset : offset + rows * columns].clone()
    lora.load_file(file, 0.5)
    assert torch.equal(lora.flat[offset : offset + rows * columns], kept * 0.5)
    assert not torch.equal(net(x), out)
    lora.load_file(file, 1.0)
    assert torch.equal(net(x), out)
    lora.load_file(file, 0.0)
    assert torch.equal(net(x), base)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("transformer.to_q.lora_A.weight"), "got no transformer.to_q"),
        (lambda state: state.update(more=torch.ones(1)), "got more, which has no place here"),
        (
            lambda state: state.update({"transformer.to_q.lora_A.weight": torch.ones(3, 6)}),
            "got shape [3, 6], expected [2, 6]",
        ),
        (lambda state: state["transformer.to_k.lora_B.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_file_of_another_adapter_is_refused(tmp_path, change, told):
    lora = lora_on(frozen_net())
    lora.reset(generator())
    kept, file = lora.snapshot(), exported(lora, tmp_path / "adapter.safetensors")
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(ValueError, match="expected") as refusal:
        lora.load_file(file)
    assert told in str(refusal.value)
    assert torch.equal(lora.flat, kept)


def test_the_file_for_comfyui_is_told_from_ours(tmp_path):
    lora = lora_on(frozen_net())
    exported(lora, tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match=r"take adapter\.safetensors beside it"):
        lora.load_file(tmp_path / "adapter.comfyui")


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "adapter.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an adapter .* adapter\.safetensors"):
        lora_on(frozen_net()).load_file(file)


def test_disabled_ends_with_the_outermost_span_and_also_where_it_fails():
    net, lora, x, base = trained()
    with lora.disabled():
        with lora.disabled():
            pass
        assert torch.equal(net(x), base)
    with pytest.raises(RuntimeError, match="pretend"), lora.disabled():
        raise RuntimeError("pretend")
    assert not torch.equal(net(x), base)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_adapters_may_be_read_by_whom_the_umask_says(tmp_path, umask, mode):
    lora = lora_on(frozen_net())
    before = os.umask(umask)
    try:
        lora.export(tmp_path / "d", tmp_path / "c", Place, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}
