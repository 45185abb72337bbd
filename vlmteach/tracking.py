"""Weights & Biases: one run per instance in one group, and one summary run with all curves.

Every instance logs under the same few names (`loss`, `p_yes/goal`, `p_yes/process`,
`gradient_norm`), so that a dashboard lays the curves over each other and a project stays within
W&B's bounds on metric names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.config import WandbConfig
from vlmteach.types import Outcome

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

SUMMARY_CURVES = 200
"""At most this many curves in the summary's chart; the table holds every instance."""


def resolve_mode(mode: str) -> str:
    """`auto` -> online when credentials are at hand, else offline; `WANDB_MODE` wins over auto."""
    if mode != "auto":
        return mode
    if chosen := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline"}.get(chosen, chosen)
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


class Tracker:
    """Opens and closes the runs of one process.

    Args:
        config: mode, project and group.
        out: the run's output folder; runs are kept in `out/wandb`.
        settings: the resolved config, stored with each run.
    """

    def __init__(self, config: WandbConfig, out: Path, settings: dict[str, Any]) -> None:
        self.mode = resolve_mode(config.mode)
        self.project = config.project
        self.group = config.group or out.name
        self.out = out
        self.settings = settings

    def _open(self, name: str, job_type: str) -> Any:
        import wandb

        # W&B's own folder must exist and be writable, else it falls back to a temporary one.
        (self.out / "wandb").mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self.project,
            group=self.group,
            name=name,
            job_type=job_type,
            dir=self.out,
            config=self.settings,
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            reinit="create_new",
            settings=wandb.Settings(
                x_save_requirements=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                console="off",
                disable_git=True,
                disable_code=True,
                silent=True,
            ),
        )

    @contextmanager
    def instance(self, key: str) -> Iterator[Logger | None]:
        """The Lightning logger of one instance's run; None when W&B is off."""
        if self.mode == "disabled":
            yield None
            return
        from lightning.pytorch.loggers import WandbLogger

        run = self._open(key, "instance")
        failed = True
        try:
            yield WandbLogger(experiment=run)
            failed = False
        finally:
            run.finish(exit_code=int(failed))

    @staticmethod
    def close(logger: Logger | None, outcome: Outcome) -> None:
        """Puts the outcome into the run's summary, where W&B's tables find it."""
        if logger is None:
            return
        run: Any = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]
        run.summary.update(dataclasses.asdict(outcome))

    def summarize(self, records: Sequence[dict[str, Any]]) -> None:
        """One run with a chart of all loss curves and a table of all instances.

        Args:
            records: `fit.json` objects.
        """
        if self.mode == "disabled" or not records:
            return
        import wandb

        run = self._open("summary", "summary")
        shown = records[:SUMMARY_CURVES]
        chart = wandb.plot.line_series(
            xs=[[reading["step"] for reading in record["readings"]] for record in shown],
            ys=[[reading["loss"] for reading in record["readings"]] for record in shown],
            keys=[record["key"] for record in shown],
            title="Loss per instance",
            xname="update",
        )
        columns: list[Any] = ["key", "stop_reason", "steps", "kept_step", "kept_loss"]
        rows = [[record[column] for column in columns] for record in records]
        run.log({"loss_curves": chart, "instances": wandb.Table(columns=columns, data=rows)})
        run.finish()
