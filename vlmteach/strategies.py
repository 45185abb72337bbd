"""Two Lightning strategies: one fans instances over ranks, one fits in place on a rank.

Ranks never talk to each other: an instance is solved on one device and claimed through the ledger.
A process group would only add a broadcast of the backbone, collective timeouts and a rendezvous
that a slow instance can break.

Both kinds of Trainer are made by `secluded_trainer`, so that nothing of the caller's job or folder
reaches a fit.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.strategies.launchers.launcher import _Launcher

from vlmteach import ranks
from vlmteach.launch import Launch


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


class InstanceParallelStrategy(InPlaceStrategy):
    """One rank of a launch, for `Trainer.predict`; the first of a machine starts the others.

    Args:
        launch: the launch, and which rank of it this is.
        device: of this rank.
    """

    def __init__(self, launch: Launch, device: torch.device) -> None:
        super().__init__(device)
        self.launch = launch
        self.global_rank = launch.rank
        self.local_rank = launch.local_rank
        self.world_size = launch.processes * launch.nodes
        self.codes: dict[int, int] = {}
        """Exit codes of the ranks that this one started, by rank, once they have ended."""

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first rank of all."""
        return self.global_rank == 0

    def _configure_launcher(self) -> None:
        if self.launch.by == "nobody" and self.launch.processes > 1:
            self._launcher = _StartsOthers(self)


class _StartsOthers(_Launcher):
    """Lightning's own launcher kills all ranks when one has died."""

    def __init__(self, strategy: InstanceParallelStrategy) -> None:
        self.strategy = strategy

    @property
    def is_interactive_compatible(self) -> bool:
        return False

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("trainer", None)
        count = self.strategy.launch.processes - 1
        with ranks.others(count, ranks.same_command()) as self.strategy.codes:
            return function(*args, **kwargs)

    def kill(self, signum: Any) -> None:
        """Does nothing: they are stopped where `launch` is left."""


@contextmanager
def secluded_trainer(
    strategy: InPlaceStrategy, folder: Path, **options: Any
) -> Iterator[pl.Trainer]:
    """A Trainer that takes nothing from the job and the folder it runs in, and says nothing.

    Left to itself, a Trainer inside a SLURM job answers SIGUSR1 by writing a checkpoint into the
    working directory, which every later fit there loads; it swallows SIGTERM, and after an
    interrupt ignores all later ones.

    Args:
        strategy: with its device.
        folder: the Trainer's root directory; must not exist, so that nothing in it is found.
        options: further ones of `Trainer`.
    """
    device = strategy.root_device
    on_gpu = device.type == "cuda"
    log, here = logging.getLogger("lightning.pytorch"), threading.current_thread()
    level, interrupt = log.level, signal.getsignal(signal.SIGINT)
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            trainer = pl.Trainer(
                accelerator="gpu" if on_gpu else "cpu",
                devices=[device.index or 0] if on_gpu else 1,
                strategy=strategy,
                plugins=[LightningEnvironment()],
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                **options,
            )
            trainer._signal_connector.register_signal_handlers = lambda: None
            yield trainer
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes an exit of it
            raise error.__context__ from None
        raise
    finally:
        log.setLevel(level)
        if here is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)


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
