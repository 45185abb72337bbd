"""Where an adapter starts: rows of A along which the loss falls fastest.

B starts at zero, so that the first updates move a weight W only within the rows of A: by s B A. Of
all A with r rows, the leading right singular vectors of dL/dW let the first step fall furthest
(LoRA-GA, arXiv 2407.05000; LoRA-One, arXiv 2502.01235). dL/dW = dY^T X is never held: each layer's
share is sketched while the gradient passes (Halko, Martinsson and Tropp, SIAM Review 2011). peft's
own `init_lora_weights="lora_ga"` keeps every dL/dW whole and moves the base weights, to start with
a B that is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vlmteach.lora import InstanceLora

SKETCH = 4
"""Rows of the sketch per row of A: the leading directions stand out of the random mixture."""


@torch.enable_grad()  # for its span alone: a run predicts, without
def align(lora: InstanceLora, loss: Callable[[], Tensor], generator: torch.Generator) -> None:
    """Turns the rows of A towards the loss's gradient; the network stays the base model.

    Costs one forward and one backward, and [4 r, in] float32 for each layer. A row keeps the length
    that it has at random, 1/sqrt(3), and its random direction where the gradient has fewer
    directions than A has rows.

    Args:
        lora: reset, so that B is zero.
        loss: evaluates it, with gradient.
        generator: on the CPU; the draw does not depend on the device.
    """
    sketches: dict[str, Tensor] = {}
    mixtures: dict[int, Tensor] = {}
    """[rows, out], orthonormal, by `out`: layers of one width share theirs."""
    hooks = []
    for name, layer in lora.layers():
        width: Any = layer.out_features
        if width not in mixtures:
            draw = torch.randn(width, min(SKETCH * lora.rank, width), generator=generator)
            mixtures[width] = torch.linalg.qr(draw)[0].T.to(lora.flat)

        def note(
            _: Any, inputs: tuple[Tensor, ...], output: Tensor, name: str = name
        ) -> Tensor | None:
            if output.requires_grad:  # a block that reentrant checkpoints run has a pass without
                return _Tap.apply(output, inputs[0].detach(), partial(add, name))
            return None

        hooks.append(layer.register_forward_hook(note))

    def add(name: str, x: Tensor, dy: Tensor) -> None:
        mixture = mixtures[dy.shape[-1]]
        dy, x = dy.flatten(0, -2).to(mixture.dtype), x.flatten(0, -2).to(mixture.dtype)
        share = (mixture @ dy.T) @ x  # [rows, in]: never [out, in]
        sketches[name] = sketches[name] + share if name in sketches else share

    try:
        torch.autograd.grad(loss(), lora.parameters, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    lora.set_rows({name: leading_rows(sketch, lora.rank) for name, sketch in sketches.items()})


class _Tap(torch.autograd.Function):
    """An output as it is, whose gradient is told together with the layer's input.

    The input is kept as autograd keeps what it needs, so that a checkpointed block drops it and
    makes it again.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, tell: Callable[[Tensor, Tensor], None]) -> Any:
        """The output."""
        ctx.save_for_backward(x)
        ctx.tell = tell
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Its gradient, once told."""
        (x,) = ctx.saved_tensors
        ctx.tell(x, gradients[0])
        return gradients[0], None, None


def leading_rows(sketch: Tensor, rank: int) -> Tensor:
    """The leading right singular vectors of a sketch as rows of length 1/sqrt(3).

    Args:
        sketch: [k, in].
        rank: how many at most; fewer where the sketch has fewer.

    Returns:
        [<= rank, in].
    """
    if not sketch.isfinite().all():
        return sketch[:0]  # whoever watches the fit will tell
    sketch = sketch.double()
    # Of the small Gram matrix [k, k]: the sketch is much wider than high.
    squares, left = torch.linalg.eigh(sketch @ sketch.T)
    squares, left = squares.flip(0)[:rank], left.flip(1)[:, :rank]
    squares = squares.clamp(min=0)
    held = squares > 1e-10 * squares[0].clamp(min=torch.finfo(squares.dtype).tiny)
    rows = (left[:, held].T @ sketch) / squares[held].sqrt()[:, None]
    return rows / math.sqrt(3)
