"""The prefix: what a network makes of an input before its first adapted block, computed once.

The first rung of a rollout has the same noise, text and first frame in every update, and no weight
below the first adapted block changes: what the layers there give out is constant. It is kept from
the first update on, and the later ones begin at the adapted blocks. The values are those that the
layers gave, so that loss and gradient are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vlmteach.lora import InstanceLora
    from vlmteach.reasoners.base import Condition, Reasoner


def prefixes_of(reasoner: Reasoner, lora: InstanceLora, *, rungs: int) -> list[Prefix]:
    """One for each rung of a rollout; none for a network without a list of blocks."""
    if reasoner.blocks is None:
        return []
    below = f"{reasoner.blocks}."
    first = min(int(slot.name.removeprefix(below).partition(".")[0]) for slot in lora.slots)
    return [Prefix(reasoner.network, reasoner.blocks, first) for _ in range(rungs)]


class Prefix:
    """The constant part of one evaluation of a network.

    Args:
        network: its blocks run one after another, each on what the one before gave out.
        blocks: name of the list of blocks in the network.
        first: number of the first block that carries the adapter.
    """

    def __init__(self, network: nn.Module, blocks: str, first: int) -> None:
        self.network = network
        self.blocks = blocks
        self.first = first
        self._kept: dict[str, list[Any]] | None = None
        """Name of a part of the network -> what it gave out, call by call."""
        self._velocity: Tensor | None = None
        """Of an evaluation by another network than the one that carries the adapter."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the evaluation is constant."""
        return self._velocity is not None

    def velocity(self, reasoner: Reasoner, z: Tensor, sigma: float, condition: Condition) -> Tensor:
        """What the reasoner's own `velocity` gives; z, sigma and condition are ever the same."""
        if self._velocity is not None:
            return self._velocity
        if self._kept is not None:
            with self._in_place(self._kept):
                return reasoner.velocity(z, sigma, condition)
        with self._noted() as (kept, has_run):
            velocity = reasoner.velocity(z, sigma, condition)
        if has_run:
            self._kept = kept
        else:
            self._velocity = velocity.detach()
        return velocity

    @contextmanager
    def _noted(self) -> Iterator[tuple[dict[str, list[Any]], list[bool]]]:
        """Notes what the parts give out until the first adapted block begins."""
        kept: dict[str, list[Any]] = {}
        has_run: list[bool] = []
        stack = self.network.get_submodule(self.blocks)
        assert isinstance(stack, nn.ModuleList)
        parts = {n: m for n, m in self.network.named_children() if m is not stack}
        hooks = []
        for name, part in parts.items():

            def note(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                if not has_run:
                    kept.setdefault(name, []).append(_constant(output))

            hooks.append(part.register_forward_hook(note))
        if self.first:

            def note_blocks(_: nn.Module, __: Any, output: Any) -> None:
                if not has_run:
                    kept[self.blocks] = [_constant(output)]

            hooks.append(stack[self.first - 1].register_forward_hook(note_blocks))
        # The hook itself is before the block: what is given out from here on is no constant.
        hooks.append(stack[self.first].register_forward_pre_hook(lambda *_: has_run.append(True)))
        try:
            yield kept, has_run
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _in_place(self, kept: dict[str, list[Any]]) -> Iterator[None]:
        """What was kept stands where the parts stood, for the span of a `with`."""
        before = {name: self.network.get_submodule(name) for name in {*kept, self.blocks}}
        stack = before[self.blocks]
        assert isinstance(stack, nn.ModuleList)
        try:
            for name, outputs in kept.items():
                if name != self.blocks:
                    setattr(self.network, name, _Given(outputs))
            if self.first:
                upper = list(stack)[self.first :]
                shorter = nn.ModuleList([_Given(kept[self.blocks]), *upper])
                setattr(self.network, self.blocks, shorter)
            yield
        finally:
            for name, part in before.items():
                setattr(self.network, name, part)


class _Given(nn.Module):
    """Gives out what was noted, call by call."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        super().__init__()
        self.outputs = outputs
        self.calls = 0

    def forward(self, *_: Any, **__: Any) -> Any:
        output = self.outputs[self.calls % len(self.outputs)]
        self.calls += 1
        return output


def _constant(output: Any) -> Any:
    """An output, which nothing trainable has touched."""
    parts = output if isinstance(output, tuple | list) else (output,)
    assert not any(isinstance(p, torch.Tensor) and p.requires_grad for p in parts), (
        "a part below the first adapted block depends on the adapter"
    )
    return output
