"""Which operations add in an order that a GPU picks anew each time, found in an autograd graph."""

from __future__ import annotations

import re

from torch import Tensor

INEXACT = re.compile(
    r"Upsample(Linear|Bilinear|Bicubic|Trilinear).*|GridSampler.*|Reflection.*|Cumsum.*|Cumprod.*"
    r"|Adaptive(Avg|Max)Pool.*|AvgPool3D.*|FractionalMaxPool.*|MaxUnpool.*|NllLoss.*|CtcLoss.*"
    r"|EmbeddingBag.*|Put|ScatterReduce|Median.*|Histc|Bincount|Resize"
)
"""Backward passes without a deterministic form on CUDA: `torch.use_deterministic_algorithms` lists
them. A cumulated sum of whole numbers is exact, and has no backward pass."""


def inexact(result: Tensor) -> set[str]:
    """The names among `INEXACT` of all that the backward pass of `result` would run."""
    found, seen, waiting = set[str](), set[object](), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().rpartition(".")[2].partition("Backward")[0]
        if INEXACT.fullmatch(name):
            found.add(name)
        waiting += [following for following, _ in node.next_functions]
    assert seen, "a result without a gradient"
    return found
