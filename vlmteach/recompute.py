"""What a forward pass keeps for its backward pass, and what is computed again there.

`none` keeps every activation. `full` keeps the input of each block and recomputes the rest;
`selective` keeps what attention gives out as well, which is small and dear to recompute. Loss and
gradient are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Checkpointing = Literal["none", "selective", "full"]
MODES: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""From the fastest to the one that takes the least memory."""

aten = torch.ops.aten
ATTENTION: set[Any] = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
}
"""The operations whose outputs `selective` keeps: attention, as one kernel."""


@runtime_checkable
class Recomputes(Protocol):
    """A part of the models whose activations can be kept or recomputed at will."""

    checkpointing: Checkpointing

    def recompute(self, mode: Checkpointing) -> None:
        """Works in this mode from now on."""
        ...


def cheaper(mode: Checkpointing) -> Checkpointing | None:
    """The next mode that takes less memory; None after the last.

    >>> cheaper("none")
    'selective'
    """
    return next(iter(MODES[MODES.index(mode) + 1 :]), None)


def options(mode: Checkpointing) -> dict[str, Any]:
    """What `torch.utils.checkpoint.checkpoint` is given in a mode that recomputes."""
    assert mode != "none"
    given: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        given["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return given


def block_runner(mode: Checkpointing) -> Callable[..., Any]:
    """What diffusers' networks run their blocks with in a mode that recomputes."""
    given = options(mode)

    def run(block: Any, *arguments: Any) -> Any:
        return checkpoint(block.__call__, *arguments, **given)

    return run


def recompute_blocks(network: Any, mode: Checkpointing) -> None:
    """Sets the mode of a network of diffusers."""
    if mode == "none":
        network.disable_gradient_checkpointing()
    else:
        network.enable_gradient_checkpointing(block_runner(mode))


def _policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    keeps = operation in ATTENTION
    return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE
