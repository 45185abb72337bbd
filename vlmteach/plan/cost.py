"""What one call costs: operations, bytes moved, bytes held; and the same of a longer stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

from torch import Tensor, nn

from vlmteach.plan.count import Live, Traffic, flops


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call on meta tensors; what was there before it is left out of the bytes."""

    flop: float
    moved: float
    """Bytes that its kernels read and write."""
    peak: float
    """Bytes held at most."""
    kept: float
    """Bytes held when it is through: its result and what its backward pass needs."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass and its backward pass, whose peak counts what the forward pass kept."""

    forward: Cost
    backward: Cost


def measured(run: Callable[[], Any], live: Live | None = None) -> tuple[Cost, Any]:
    """The cost of a call, and its result, which counts as kept."""
    live = live or Live()
    live.peak = live.bytes
    with live, Traffic() as traffic:
        counted, result = flops(run)
    return Cost(counted, traffic.bytes, live.peak, live.bytes), result


def both_ways(run: Callable[[], Tensor]) -> Pass:
    """The cost of a call and of the backward pass through it."""
    live = Live()
    forward, result = measured(run, live)
    start = result.sum()
    backward, _ = measured(start.backward, live)
    return Pass(forward, backward)


def at(costs: Sequence[Cost], sizes: Sequence[int], size: int) -> Cost:
    """The cost at another size, by the polynomial through those measured.

    Exact where each step adds what the one before did (a line through two: equal blocks), or grows
    evenly (a parabola through three: frames that are joined, or see each other).
    """
    return Cost(
        *(_through(sizes, values, size) for values in zip(*map(astuple, costs), strict=True))
    )


def _through(sizes: Sequence[int], values: Sequence[float], size: int) -> float:
    total = 0.0
    for place, value in zip(sizes, values, strict=True):
        for other in sizes:
            if other != place:
                value *= (size - other) / (place - other)
        total += value
    return total


@contextmanager
def only(network: nn.Module, name: str, numbers: Sequence[int]) -> Iterator[None]:
    """Leaves only some blocks of a network's list for the span of a `with`."""
    owner, _, own = name.rpartition(".")
    parent: Any = network.get_submodule(owner)
    stack = getattr(parent, own)
    setattr(parent, own, nn.ModuleList(stack[number] for number in numbers))
    try:
        yield
    finally:
        setattr(parent, own, stack)
