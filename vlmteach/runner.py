"""Instances over ranks: claim, run, record, resume.

Every rank streams the same samples and claims them one by one through the ledger on disk, so that
balance, resumption and taking over from a dead rank are one mechanism.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar
from webdataset.compat import WebLoader
from webdataset.pipeline import DataPipeline

from vlmteach import models, results
from vlmteach.config import Config
from vlmteach.instances import InstanceError, RawSample, decode, list_keys, read_samples
from vlmteach.ledger import DONE, ERROR, Claim, Ledger, folder_name
from vlmteach.methods import METHODS, Bench, Method
from vlmteach.micro_fit import quiet
from vlmteach.queries import load_query_file
from vlmteach.record import write_json, write_text
from vlmteach.rollout import gradient_span
from vlmteach.strategies import InstanceParallelStrategy
from vlmteach.tracking import Tracker
from vlmteach.types import Reading
from vlmteach.world import World, global_rank, launch_id

UNBOUND = ("wandb", "run.attempts")
"""Config entries that may change between a run and its resumption: no result depends on them."""


FAILURES_IN_A_ROW = 3
"""A rank that fails this many instances one after another, for reasons that lie in no sample, takes
no more: a sick device would otherwise turn every instance of the run into an error row."""


@dataclass(frozen=True)
class Job:
    """What one command was asked to do."""

    config: Config
    sources: tuple[str, ...]
    out: Path
    queries: Path | None = None


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(item) if isinstance(item, tuple) else item
    return flat


def bind(config: Config, out: Path) -> None:
    """Writes `config.yaml`, or checks that a run to be resumed was made with the same.

    Raises:
        ValueError: when results would mix two configs in one folder.
    """
    path = out / "config.yaml"
    ours = _flat(dataclasses.asdict(config))
    if path.exists() and any(out.glob(f"*/{DONE}")):
        theirs = _flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        changed = sorted(
            name
            for name in ours.keys() | theirs.keys()
            if ours.get(name) != theirs.get(name) and not name.startswith(UNBOUND)
        )
        if changed:
            name = changed[0]
            raise ValueError(
                f"--out {out}: got {name} = {ours.get(name)!r}"
                f"{f' and {len(changed) - 1} more changes' if changed[1:] else ''}, expected "
                f"{theirs.get(name)!r} as in its config.yaml; resume with that config, or name "
                "another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    write_text(path, yaml.safe_dump(plain, sort_keys=False))


class Fleet(pl.LightningModule):
    """The outer module: loads the frozen models once per rank; `predict_step` solves an instance.

    Args:
        job: what to do.
        keys: the keys of all instances of the job.
        ledger: shared by all ranks.
    """

    def __init__(self, job: Job, keys: list[str], ledger: Ledger) -> None:
        super().__init__()
        self.job = job
        self.keys = keys
        self.ledger = ledger
        self.method: Method | None = None
        self.bar: tqdm | None = None
        self.failures_in_a_row = 0

    def configure_model(self) -> None:
        if self.method is not None:
            return
        config = self.job.config
        disable_progress_bar()  # transformers' own, one per model part
        torch.set_num_threads(config.run.threads)
        if config.run.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts
            torch.use_deterministic_algorithms(True, warn_only=True)
        given = load_query_file(self.job.queries) if self.job.queries else {}
        loaded = models.load(config, self.device_of_rank())
        self.method = METHODS[config.method](Bench(config, loaded, given))
        self.tracker = Tracker(config.wandb, self.job.out, dataclasses.asdict(config))
        # The models live as long as the process: out of the collector's sight, a collection per
        # instance (finished fits are reference cycles) costs 0.1 ms instead of 190.
        gc.collect()
        gc.freeze()

    def device_of_rank(self) -> torch.device:
        return self.trainer.strategy.root_device

    def predict_dataloader(self) -> WebLoader:
        # Samples are claimed in `predict_step`, not here: a loader reads ahead of what is solved.
        return WebLoader(DataPipeline(self._waiting), batch_size=None, num_workers=0)

    def _waiting(self) -> Iterator[RawSample]:
        """Samples that nobody has finished or is working on, until none is left.

        One pass is not enough: a rank may die after this one has passed its claim by.
        """
        while waiting := set(self.ledger.pending(self.keys)):
            for raw in read_samples(self.job.sources):
                if self._is_sick():
                    return
                if raw.key in waiting and self.ledger.pending([raw.key]):
                    yield raw

    def _is_sick(self) -> bool:
        return self.failures_in_a_row >= FAILURES_IN_A_ROW

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # encoded bytes

    def on_predict_start(self) -> None:
        if self.trainer.is_global_zero:
            self.bar = tqdm(total=len(self.keys), unit="instance", dynamic_ncols=True)
            self.bar.initial = self._finished()  # the rate is of this launch alone
            self._advance()

    def on_predict_end(self) -> None:
        if self.bar is not None:
            self._advance()
            self.bar.close()

    def _finished(self) -> int:
        return sum(map(self.ledger.is_done, self.keys))

    def _advance(self) -> None:
        """Shows what all ranks have finished together."""
        assert self.bar is not None
        self.bar.n = self._finished()
        self.bar.refresh()

    def predict_step(self, raw: RawSample, batch_idx: int) -> None:
        if self.trainer.received_sigterm:  # Lightning swallows it between two fits
            raise SystemExit(143)
        claim = None if self._is_sick() else self.ledger.claim(raw.key)
        if claim is None:
            return
        folder = self.job.out / folder_name(raw.key)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._solve(raw, claim, folder)
            self.failures_in_a_row = 0
        except InstanceError as error:
            write_json(folder / ERROR, results.error_row(raw, error))
        except Exception as error:
            write_json(folder / ERROR, results.error_row(raw, error))
            self.failures_in_a_row += 1
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the next instance may fit where this one did not
        finally:  # also when the run is being stopped: an instance let go is no failed attempt
            self.ledger.release(claim)
        gc.collect()
        if self.bar is not None:
            self._advance()

    def _solve(self, raw: RawSample, claim: Claim, folder: Path) -> None:
        assert self.method is not None
        instance = decode(raw)

        def tell(reading: Reading) -> None:
            self.ledger.touch(claim)
            if self.bar is not None:
                told = f"{raw.key[-32:]} update {reading.step} loss {reading.loss:.3f}"
                self.bar.set_postfix_str(told, refresh=sys.stderr.isatty())  # not into log files

        with self.tracker.instance(raw.key) as logger:
            outcome = self.method.solve(instance, folder, tell=tell, logger=logger)
            self.tracker.close(logger, outcome)
        write_json(folder / DONE, results.done_row(outcome))


def wait_for_others(ledger: Ledger, keys: list[str], poll_seconds: float = 0.5) -> None:
    """Waits while ranks that this one did not launch work on the last instances.

    Ends at once when an instance is left that nobody works on: its rank has died, and a rerun of
    the command is due.
    """
    while not all(map(ledger.is_done, keys)):
        if ledger.pending(keys) or ledger.poisoned(keys):
            return
        time.sleep(poll_seconds)


def run(job: Job, *, accelerator: str, shape: World) -> tuple[list[dict[str, Any]], int]:
    """Solves every instance of a job that has no result yet.

    Args:
        job: what to do.
        accelerator: `cpu` or `gpu`.
        shape: processes per machine and machines.

    Returns:
        On the first rank the rows of `results.jsonl`, and how many instances have none because
        the ranks that should have solved them died or stopped (a rerun takes them up); nothing on
        the others.

    Raises:
        ValueError: for a job that cannot start, before anything is written or loaded.
    """
    config = job.config
    gradient_span(config.fit.gradient, len(config.reasoner.ladder))
    keys = list_keys(job.sources)
    if job.queries:
        load_query_file(job.queries)
    bind(config, job.out)
    ledger = Ledger(job.out, launch=launch_id(), attempts=config.run.attempts)
    if global_rank() == 0:
        results.reopen(job.out, job.sources, keys)
    fleet = Fleet(job, keys, ledger)
    if ledger.pending(keys):
        with quiet():
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=shape.devices,
                num_nodes=shape.nodes,
                strategy=InstanceParallelStrategy(),
                plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else [],
                inference_mode=False,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                use_distributed_sampler=False,
            )
            trainer.predict(fleet, return_predictions=False)
    if global_rank() != 0:
        return [], 0
    wait_for_others(ledger, keys)
    results.give_up(job.out, keys, ledger)
    if fleet.method is not None:  # something was done
        fleet.tracker.summarize(results.fits(job.out, keys))
    rows = results.collect(job.out, keys)
    return rows, len(keys) - len(rows)
