"""Lightning loggers of the user's choice, made anew for each instance; none decides anything.

What a logger fails at is told once per process, and the process goes on without it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.class_path import load_class
from vlmteach.classes import check, make
from vlmteach.config import WANDB_LOGGER, ClassConfig, Config, WandbConfig
from vlmteach.ledger import folder_name
from vlmteach.strategies import own_world
from vlmteach.text import printable

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

LOGS = "logs"
"""Folder of the loggers' files, in an instance's."""
_CALLED = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")
"""What a Trainer calls a logger for; checkpoints, of which loggers are told too, are not made."""


class Loggers:
    """The loggers of one process besides W&B's, which `vlmteach.tracking` has.

    Args:
        specs: as in the config; W&B's among them is passed over.
        out: the run's output folder.
        settings: the resolved config, told to each logger beside the instance's key.

    Raises:
        ValueError: a class that is not there, or arguments it does not take.
    """

    def __init__(self, specs: Sequence[ClassConfig], out: Path, settings: dict[str, Any]) -> None:
        for spec in specs:
            if spec.class_path == WANDB_LOGGER and spec.init_args:
                raise ValueError(
                    f"--logger wandb: got the argument {min(spec.init_args)!r}, expected none; set "
                    "--wandb.mode, --wandb.project or --wandb.group"
                )
        self.specs = [spec for spec in specs if spec.class_path != WANDB_LOGGER]
        self.out = out
        self.settings = settings
        for spec in self.specs:
            check(_placed(spec, out, "instance"))

    def of(self, key: str) -> list[Logger]:
        """Fresh ones for an instance; without those that have failed in this process."""
        made: list[Logger] = []
        for spec in list(self.specs):
            with self._spared(spec), own_world(), warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", module=r"lightning\..*"
                )  # of earlier tries' files
                made.append(self._made(spec, key))
        return made

    def _made(self, spec: ClassConfig, key: str) -> Logger:
        from lightning.pytorch.loggers import Logger

        logger = make(_placed(spec, self.out, key))
        if not isinstance(logger, Logger):
            raise ValueError(
                f"--logger: got {spec.class_path}, which makes a {type(logger).__name__}, expected "
                "a subclass of lightning.pytorch.loggers.Logger"
            )
        getattr(logger, "experiment", None)  # made at first sight, which may fail
        logger.log_hyperparams({"key": key, **self.settings})
        return spare(logger, functools.partial(self._spared, spec))

    @contextmanager
    def _spared(self, spec: ClassConfig) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if spec in self.specs:
                self.specs.remove(spec)
                told = printable(" ".join(f"{type(error).__name__}: {error}".split())[:300])
                print(
                    f"warning: {spec.class_path}: {told}; results do not depend on it, and "
                    "fit.json holds all curves. This process goes on without it",
                    file=sys.stderr,
                    flush=True,
                )


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Closes loggers at the end of a `with`, as each holds a file or more. A Trainer does so at the
    end of a fit; an instance may have none."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)


def spare(logger: Logger, spared: Callable[[], AbstractContextManager[None]]) -> Logger:
    """The same logger, which raises nothing where a fit calls it, and is silent once it failed; it
    is closed once.

    Args:
        logger: changed in place, so that whoever asks for its class finds it.
        spared: makes a `with` inside which what is raised is told and ends.
    """
    lost = closed = False

    def guarded(name: str, call: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(call)
        def tried(*arguments: Any, **named: Any) -> None:
            nonlocal lost, closed
            if lost or (closed and name == "finalize"):
                return
            closed = closed or name == "finalize"
            with spared():
                try:
                    call(*arguments, **named)
                except Exception:
                    lost = True
                    raise

        return tried

    for name in _CALLED:
        setattr(logger, name, guarded(name, getattr(logger, name)))
    return logger


def wandb_config(config: Config) -> WandbConfig:
    """W&B's part of a config: disabled where `logger` does not name it."""
    named = any(spec.class_path == WANDB_LOGGER for spec in config.logger)
    return config.wandb if named else replace(config.wandb, mode="disabled")


def _placed(spec: ClassConfig, out: Path, key: str) -> ClassConfig:
    """With the places and names that the class takes and the user leaves open: those of the
    instance, inside the output folder."""
    takes = inspect.signature(load_class(spec.class_path)).parameters
    name = folder_name(key)
    open_ones = {
        # Lightning's own loggers write into save_dir/name/version.
        "save_dir": str(out if "version" in takes else out / name / LOGS),
        "name": name,
        "run_name": name,
        "version": name if "name" in spec.init_args else LOGS,
    }
    given = {word: value for word, value in open_ones.items() if word in takes}
    return replace(spec, init_args=given | spec.init_args)
