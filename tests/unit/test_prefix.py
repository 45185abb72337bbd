"""The prefix is exact: loss and gradient are those of the whole network, bit for bit."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.families import cases
from vlmteach.config import LoraConfig
from vlmteach.families import REASONERS, family_class
from vlmteach.lora import InstanceLora
from vlmteach.models import targets_of
from vlmteach.prefix import prefixes_of
from vlmteach.rollout import Prediction, draw_noise, gradient_span, rollout, sample_latents
from vlmteach.types import ClipSpec

LADDER = (1000.0, 950.0, 500.0, 250.0)
"""Of two experts each evaluates two."""
MODES = ("first", "last", "full", 1)


@pytest.fixture(scope="module", params=REASONERS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def load(family, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp(family)
    cases("reasoner")[family].save(folder, "text")

    def load(mode, blocks, checkpointing=False):
        last_rung, grad_from = gradient_span(mode, len(LADDER))
        reasoner = family_class(REASONERS, family).load(
            str(folder),
            dtype=torch.float32,
            device=torch.device("cpu"),
            accepts="text",
            distillation_lora=None,
            checkpointing=checkpointing,
            ladder=LADDER,
            rungs=range(grad_from, last_rung + 1),
        )
        targets = targets_of(reasoner, LoraConfig(blocks=blocks))
        lora = InstanceLora(reasoner.network, rank=2, alpha=2.0, targets=targets)
        return reasoner, lora, last_rung, grad_from

    return load


def posed(reasoner, candidate=0):
    facts = reasoner.facts
    clip = ClipSpec(
        frames=facts.temporal_stride + 1,
        height=facts.size_multiple,
        width=facts.size_multiple,
        fps=8.0,
    )
    noise = draw_noise(
        reasoner.latent_shape(clip),
        len(LADDER),
        seed=0,
        key="a",
        device=torch.device("cpu"),
        candidate=candidate,
    )
    return reasoner.encode("a ball rolls", None, clip), noise


def predicted(given, prefixes) -> torch.Tensor:
    reasoner, _, condition, noise, last_rung, grad_from = given
    span = {"last_rung": last_rung, "grad_from": grad_from}
    return rollout(reasoner, condition, noise, LADDER, **span, prefixes=prefixes)


def readings(given, prefixes) -> list[Any]:
    """Loss and gradient of three updates, the adapter another one each time; then its base."""
    _, lora, *_ = given
    told = []
    for update in range(4):
        weights = torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(update))
        lora.load(0.1 * weights)
        with lora.disabled() if update == 3 else nullcontext():
            z0 = predicted(given, prefixes)
        told.append(z0.detach())
        if update < 3:
            told += torch.autograd.grad(z0.square().mean(), lora.parameters, allow_unused=True)
    return told


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert [each is None for each in ours] == [each is None for each in theirs]
    pairs = zip(ours, theirs, strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs if mine is not None)


@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_are_those_of_the_whole_network(load, family, mode):
    if family == "wan_a14b" and mode == "full":  # its adapter sits on one expert
        with pytest.raises(ValueError, match=r"both sides of"):
            load(mode, None)
        return
    for blocks in (1, None):
        reasoner, lora, *span = load(mode, blocks)
        before = dict(reasoner.network.named_modules())
        for candidate in (0, 1):
            given = (reasoner, lora, *posed(reasoner, candidate), *span)
            prefixes = prefixes_of(reasoner, lora, rungs=span[0] + 1)
            assert_same(readings(given, prefixes), readings(given, ()))
        assert dict(reasoner.network.named_modules()) == before


@pytest.mark.parametrize("mode", ["first", "last", 1])
def test_sampling_goes_on_from_a_prediction(load, mode):
    """After a reading, and where only its prefixes are known: the bits of the whole sampling."""
    reasoner, lora, last_rung, grad_from = load(mode, 1)
    condition, noise = posed(reasoner)
    lora.load(0.1 * torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(0)))
    prefixes = prefixes_of(reasoner, lora, rungs=last_rung + 1)
    z0 = predicted((reasoner, lora, condition, noise, last_rung, grad_from), prefixes)
    assert z0.requires_grad
    with torch.no_grad():
        whole = sample_latents(reasoner, condition, noise, LADDER)
        after = Prediction(last_rung, z0.detach())
        ways: list[dict[str, Any]] = [{"prefixes": prefixes}, {"after": after}]
        for known in (*ways, {"after": after, "prefixes": prefixes}):
            assert torch.equal(sample_latents(reasoner, condition, noise, LADDER, **known), whole)


def test_checkpointing_changes_nothing(load):
    reasoner, lora, *span = load("first", 1, checkpointing=True)
    given = (reasoner, lora, *posed(reasoner), *span)
    assert_same(readings(given, prefixes_of(reasoner, lora, rungs=1)), readings(given, ()))


def test_blocks_below_the_adapter_run_once(load):
    reasoner, lora, *span = load("first", 1)
    stack = list(reasoner.network.get_submodule(reasoner.blocks))
    runs = []
    for number, block in enumerate(stack):
        block.register_forward_hook(lambda *_, number=number: runs.append(number))
    given = (reasoner, lora, *posed(reasoner), *span)
    readings(given, prefixes_of(reasoner, lora, rungs=1))
    last = len(stack) - 1
    assert runs == [*range(last), *[last] * 4]


def test_rungs_before_the_adapted_expert_are_evaluated_once(load, family):
    reasoner, lora, *span = load("last", None)
    prefixes = prefixes_of(reasoner, lora, rungs=4)
    runs = []
    if family == "wan_a14b":
        other = reasoner._experts["high_noise"]
        assert other is not reasoner.network
        other.register_forward_hook(lambda *_: runs.append(1))
    readings((reasoner, lora, *posed(reasoner), *span), prefixes)
    rungs_of_other = 2 if family == "wan_a14b" else 0
    assert len(runs) == sum(each.is_whole for each in prefixes) == rungs_of_other


def test_a_failure_leaves_the_network_whole(load):
    reasoner, lora, *_ = load("first", 1)
    condition, noise = posed(reasoner)
    prefixes = prefixes_of(reasoner, lora, rungs=1)
    given = (reasoner, condition, noise, LADDER)
    rollout(*given, last_rung=0, grad_from=1, prefixes=prefixes)
    before = list(reasoner.network.named_modules())
    hook = reasoner.network.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rollout(*given, last_rung=0, grad_from=1, prefixes=prefixes)
    hook.remove()
    assert list(reasoner.network.named_modules()) == before


@pytest.mark.parametrize("blocks", [3, 100])
def test_more_blocks_than_there_are_are_refused(load, blocks):
    with pytest.raises(ValueError, match=rf"lora\.blocks: got {blocks}, expected at most 2"):
        load("first", blocks)


def test_a_network_without_a_list_of_blocks_has_no_prefix():
    reasoner = SimpleNamespace(blocks=None, lora_targets={"attention": "a"}, network=None)
    assert prefixes_of(reasoner, lora=None, rungs=3) == []  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected none, as"):
        targets_of(reasoner, LoraConfig(blocks=1))  # type: ignore[arg-type]
