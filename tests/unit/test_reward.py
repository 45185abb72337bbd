import math

import pytest
import torch

from vlmteach.reward import instance_loss


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
