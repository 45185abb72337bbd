import math

import pytest
import torch

from tests.plugins import toy_reward
from vlmteach.config import Config, FitConfig, RewardConfig
from vlmteach.methods.base import terms_of
from vlmteach.reward import (
    TEACHER,
    Keep,
    Objective,
    Prepared,
    Term,
    Watched,
    instance_loss,
)
from vlmteach.types import Query

FRAMES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BASE = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_equation_five_by_hand():
    log_p = torch.tensor([0.5, 0.25, 0.125]).log()
    loss = instance_loss(log_p, ("goal", "process", "process"), goal_weight=0.3)
    by_hand = 0.3 * math.log(2) + 0.7 * (math.log(4) + math.log(8)) / 2
    assert loss.item() == pytest.approx(by_hand)


def test_order_of_roles_does_not_matter():
    log_p = torch.tensor([0.5, 0.25, 0.125]).log()
    forward = instance_loss(log_p, ("goal", "process", "process"), 0.5)
    backward = instance_loss(log_p.flip(0), ("process", "process", "goal"), 0.5)
    assert forward == backward


@pytest.mark.parametrize("role", ["goal", "process"])
def test_one_role_alone_carries_the_whole_weight(role):
    log_p = torch.tensor([0.5, 0.25]).log()
    assert instance_loss(log_p, (role, role), 0.9).item() == pytest.approx(math.log(8) / 2)


def test_certain_yes_is_zero_and_gradient_is_the_weights():
    log_p = torch.zeros(3, requires_grad=True)
    loss = instance_loss(log_p, ("goal", "process", "process"), 0.5)
    loss.backward()
    assert loss.item() == 0
    assert log_p.grad is not None
    assert log_p.grad.tolist() == [-0.5, -0.25, -0.25]


@pytest.mark.parametrize("roles", [(), ("goal",), ("goal", "process", "process")])
def test_refuses_roles_that_do_not_match(roles):
    with pytest.raises(ValueError, match=r"roles: got \d for 2 queries"):
        instance_loss(torch.zeros(2), roles, 0.5)


def watched(base=lambda: BASE):
    queries = (Query("Is it there?", "goal"), Query("Is it whole?", "process"))
    return Watched(
        key="one",
        prompt="Move it.",
        first_frame=None,
        queries=queries,
        times=(0.0, 0.5, 1.0),
        height=4,
        width=4,
        device=torch.device("cpu"),
        base=base,
    )


class Mean:
    """Two scores: the mean of all frames, and that of the first row of pixels."""

    def __init__(self, shifts=True, count=2):
        self.shifts = shifts
        self.count = count
        self.seen = []

    def prepare(self, watched):
        return Prepared(roles=tuple(query.role for query in watched.queries), state=watched.key)

    def scores(self, frames, prepared):
        assert prepared.state == "one"
        self.seen.append(frames)
        return torch.stack([frames.mean().log(), frames[..., 0, :].mean().log()])[: self.count]


def objective(*terms, goal_weight=0.3):
    return Objective([Term(*term) for term in terms], watched(), goal_weight)


def test_a_sum_of_rewards_is_its_shares_and_the_gradient_that_of_the_sum():
    frames = FRAMES.clone().requires_grad_()
    loss = objective((TEACHER, Mean(), 1.0), ("keep", Keep(), 2.5))(frames)
    assert set(loss.shares) == {TEACHER, "keep"}
    assert loss.total.item() == pytest.approx(sum(s.item() for s in loss.shares.values()))
    assert loss.shares["keep"].item() == pytest.approx(2.5 * (FRAMES - BASE).square().mean().item())
    loss.total.backward()
    step = 1e-6
    direction = torch.randn(FRAMES.shape, dtype=torch.float64)
    ends = [
        objective((TEACHER, Mean(), 1.0), ("keep", Keep(), 2.5))(FRAMES + sign * step * direction)
        for sign in (1, -1)
    ]
    slope = (ends[0].total - ends[1].total).item() / (2 * step)
    assert frames.grad is not None
    assert slope == pytest.approx((frames.grad * direction).sum().item(), rel=1e-6)


def test_the_teacher_alone_is_equation_five_bit_for_bit():
    loss = objective((TEACHER, Mean(), 1.0))(FRAMES)
    assert loss.log_p_yes is not None
    by_hand = instance_loss(loss.log_p_yes, ("goal", "process"), 0.3)
    assert torch.equal(loss.total, by_hand)


def test_keep_is_zero_on_the_base_and_asks_for_it_once():
    asked = []

    def base():
        asked.append(1)
        return BASE

    whole = Objective([Term("keep", Keep(), 1.0)], watched(base), 0.5)
    assert whole(BASE).total == 0
    assert whole(FRAMES).total > 0
    assert asked == [1]
    assert whole.query_roles == ()
    assert whole(FRAMES).log_p_yes is None


def test_only_rewards_that_may_see_the_shift_see_it():
    moved, still = Mean(), Mean(shifts=False)
    objective((TEACHER, moved, 1.0), ("Mean", still, 1.0))(FRAMES, (0.25, 0.0))
    assert torch.equal(still.seen[0], FRAMES)
    assert torch.equal(moved.seen[0][..., 1:, :], FRAMES[..., :-1, :])


def test_scores_that_are_not_one_per_role_are_refused():
    with pytest.raises(ValueError, match=r"Mean: got scores of shape \(1,\), expected \(2,\)"):
        objective(("Mean", Mean(count=1), 1.0))(FRAMES)


def test_no_reward_at_all_is_refused():
    with pytest.raises(ValueError, match=r"rewards: got none, expected at least one"):
        objective()


def named(**fit):
    bright = "tests.plugins.toy_reward.Bright"
    config = Config(
        fit=FitConfig(**fit),
        reward=(
            RewardConfig(class_path=bright, weight=0.2),
            RewardConfig(class_path=bright, weight=0.5, init_args={"floor": 0.1}),
            RewardConfig(class_path="no.such.Reward", weight=0.0),
        ),
    )
    return terms_of(config, teacher=None)  # type: ignore[arg-type]  # only kept


def test_terms_are_named_and_those_without_weight_never_made():
    terms = named()
    assert [(term.name, term.weight) for term in terms] == [
        (TEACHER, 1.0),
        ("Bright", 0.2),
        ("Bright 2", 0.5),
    ]
    assert getattr(terms[2].reward, "floor") == 0.1  # noqa: B009
    names = [term.name for term in named(teacher_weight=0.0, keep_weight=3.0)]
    assert names == ["keep", "Bright", "Bright 2"]


def test_a_class_named_as_ours_takes_no_place_of_ours(monkeypatch):
    monkeypatch.setattr(toy_reward, TEACHER, toy_reward.Bright, raising=False)
    config = Config(reward=(RewardConfig(class_path=f"tests.plugins.toy_reward.{TEACHER}"),))
    assert [t.name for t in terms_of(config, teacher=None)] == [TEACHER, f"{TEACHER} 2"]  # type: ignore[arg-type]


def test_a_class_that_is_no_reward_is_refused():
    config = Config(reward=(RewardConfig(class_path="tests.plugins.toy_callback.Patience"),))
    with pytest.raises(ValueError, match=r"--reward: got .*Patience without prepare and scores"):
        terms_of(config, teacher=None)  # type: ignore[arg-type]
