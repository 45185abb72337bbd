"""Two Lightning strategies: one fans instances over ranks, one fits in place on a rank.

Ranks never talk to each other: an instance is solved on one device and claimed through the ledger.
A process group would only add a broadcast of the backbone, collective timeouts and a rendezvous
that a slow instance can break.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher


class InstanceParallelStrategy(DDPStrategy):
    """DDP's launchers, devices and ranks without its process group: for `Trainer.predict` only."""

    def setup_distributed(self) -> None:
        """Sets the ranks, and opens no process group."""
        self.set_world_ranks()

    def setup(self, trainer: Any) -> None:
        """Sets up the accelerator and the precision, and tells no other rank."""
        # DDPStrategy.setup would broadcast the module's parameters; there is nobody to hear it.
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.setup_precision_plugin()

    def model_to_device(self) -> None:
        """Does nothing: the models are where they were built."""
        pass

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: no rank waits for another."""
        pass

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """What this rank has."""
        return obj

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """What this rank has."""
        return tensor

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """What this rank decides."""
        return decision

    def all_gather(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """What this rank has."""
        return tensor

    def teardown(self) -> None:
        """Waits for the processes this rank launched and passes on how they ended.

        Raises:
            RuntimeError: when a launched rank ended with a non-zero code.
        """
        assert self.cluster_environment is not None
        self.cluster_environment.teardown()
        launcher = self._launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            codes = [process.wait() for process in launcher.procs]
            if any(codes):
                raise RuntimeError(
                    f"ranks 1..{len(codes)}: got exit codes {codes}, expected zeros; their "
                    "messages stand above, and the same command does what is missing"
                )


class InPlaceStrategy(SingleDeviceStrategy):
    """Fits a module where its tensors already are: nothing is moved before, nothing after.

    The stock strategy moves the module to the CPU and empties the allocator's cache after each
    fit, which for a resident backbone costs more than the fit.
    """

    def model_to_device(self) -> None:
        """Does nothing: the models are where they were built."""
        pass

    def teardown(self) -> None:
        """Closes what the fit opened, and leaves the module on its device."""
        self.precision_plugin.teardown()
        self.checkpoint_io.teardown()


@contextmanager
def own_world() -> Iterator[None]:
    """Rank 0 of one, for the span of a micro-fit.

    Lightning's `rank_zero_only.rank` is global to the process, and every stock logger drops what
    a rank above 0 logs: without this, the curves of most instances would be lost.
    """
    held: Any = rank_zero_only  # a function with an attribute, which its type hides
    rank = held.rank
    held.rank = 0
    try:
        yield
    finally:
        held.rank = rank


def accelerator_of(device: torch.device) -> tuple[str, Any]:
    """Lightning's (accelerator, devices) arguments for one torch device."""
    if device.type == "cuda":
        return "gpu", [device.index or 0]
    return "cpu", 1
