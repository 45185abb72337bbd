"""Log-probabilities to loss: Eq. 4 and Eq. 5. Tensors in, tensor out; sees no model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlmteach.types import Role


def query_losses(log_p_yes: Tensor) -> Tensor:
    """Eq. 4: L_q = -log P("Yes" | video, q), [Q] -> [Q]; 0 is certain, grows without bound."""
    return -log_p_yes


def instance_loss(log_p_yes: Tensor, roles: Sequence[Role], goal_weight: float) -> Tensor:
    """Eq. 5: L = lambda L_goal + (1 - lambda) / M sum_m L_proc_m.

    Where an instance has queries of one role only, that role carries the whole weight, so that
    the threshold keeps its meaning.

    Args:
        log_p_yes: [Q] log-probabilities of "Yes".
        roles: the role of each query.
        goal_weight: lambda in [0, 1].

    Returns:
        Scalar loss, at least 0.

    Raises:
        ValueError: when there is not one role per query, or no query at all.
    """
    if len(roles) != log_p_yes.shape[0] or not roles:
        raise ValueError(
            f"roles: got {len(roles)} for {log_p_yes.shape[0]} queries, expected one each and at "
            "least one; pass the roles of exactly the queries that were asked"
        )
    losses = query_losses(log_p_yes)
    goal = [i for i, role in enumerate(roles) if role == "goal"]
    process = [i for i, role in enumerate(roles) if role == "process"]
    if not process:
        return losses[goal].mean()
    if not goal:
        return losses[process].mean()
    return goal_weight * losses[goal].mean() + (1 - goal_weight) * losses[process].mean()
