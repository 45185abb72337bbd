"""Instances over ranks: claim, run, record, resume.

Every rank streams the same samples and claims them one by one through the ledger on disk, so that
balance, resumption and taking over from a dead rank are one mechanism. A rank that finds nothing
left in one run goes on to the next: of several runs, only the last one has a tail to wait for.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from transformers.utils.logging import disable_progress_bar
from webdataset.compat import WebLoader
from webdataset.pipeline import DataPipeline

from vlmteach import models, ranks, results, stops
from vlmteach.classes import check_classes
from vlmteach.instances import InstanceError, RawSample, decode, read_samples
from vlmteach.instances.ahead import how_many, read_ahead
from vlmteach.job import Job
from vlmteach.kernels import settle
from vlmteach.launch import Launch, launch_id
from vlmteach.ledger import DONE, Claim, Ledger, folder_name
from vlmteach.loggers import Loggers, closing, wandb_config
from vlmteach.methods import Method, Resources, carry_out, load_method
from vlmteach.plan import loaded
from vlmteach.record import write_json
from vlmteach.rollout import gradient_span
from vlmteach.shown import RunLine
from vlmteach.strategies import InstanceParallelStrategy, secluded_trainer
from vlmteach.tracking import Tracker
from vlmteach.types import Reading

FAILURES_IN_A_ROW = 3
"""A rank that fails this many instances of a run one after another, for reasons that lie in no
sample, takes no more of them: a sick device would otherwise turn all of them into error rows."""
POLL_SECONDS = 0.5
"""Between two looks at what others are at work on."""


class Run:
    """One job under way, as a rank sees it.

    Args:
        job: what to do.

    Raises:
        ValueError: for a job that cannot start, before anything is written or loaded.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        gradient_span(job.config.fit.gradient, len(job.config.reasoner.ladder))
        check_classes(job.config)
        self.keys, self.members = job.samples
        """Of all instances of the job, and what became of the sources' members."""
        self.queries = job.given
        self.binding = job.binding
        settings = dataclasses.asdict(job.config)
        self.tracker = Tracker(wandb_config(job.config), job.out, settings)
        """The run's W&B dashboards."""
        self.loggers = Loggers(job.config.logger, job.out, settings)
        """Its other loggers."""
        self.failures_in_a_row = 0
        self.refusal: Exception | None = None
        """Why this rank could not load the run's models."""
        self.had_work = False
        """Whether an instance was missing when this launch began."""

    def open(self, rank: int) -> None:
        """Binds the output folder to the job; the first rank makes earlier failures missing.

        Raises:
            ValueError: a folder that is bound to another config or other inputs, or in which
                nothing can be written.
        """
        try:
            self.binding.bind(self.ledger, self.keys)
            if rank == 0:
                results.reopen(self.job.out, self.job.sources, self.keys)
            self.ledger.forget()
        except OSError as error:
            raise ValueError(
                f"--out {self.job.out}: got {error}, expected a folder that can be written; name "
                "another, or make room"
            ) from error
        self.had_work = self.has_work()

    @cached_property
    def ledger(self) -> Ledger:
        """Shared by all ranks."""
        max_deaths = self.job.config.run.max_deaths
        return Ledger(self.job.out, launch=launch_id(), max_deaths=max_deaths)

    def is_closed(self) -> bool:
        """Whether this rank takes no more of its instances."""
        return self.refusal is not None or self.failures_in_a_row >= FAILURES_IN_A_ROW

    def has_work(self) -> bool:
        """Whether an instance has no result yet, and the run was not closed by an error."""
        return not self.is_closed() and bool(self.ledger.unfinished(self.keys))

    def finished(self) -> int:
        """Instances that have a result."""
        return self.ledger.finished(self.keys)

    def waiting(self) -> Iterator[RawSample]:
        """One pass over the samples that nobody has finished or is working on.

        What has taken several processes with it comes last, when nothing else is left. Keys of
        which the sources no longer hold a sample get error rows.
        """
        pending = self.ledger.pending(self.keys)
        suspects = set(self.ledger.suspects(pending))
        waiting = set(pending) - suspects or suspects
        if not waiting:
            return
        found, told = False, "no such sample any more"
        try:
            for raw in read_samples(self.job.sources):
                stops.check()
                if self.is_closed():
                    return
                if raw.key in waiting:
                    found = True
                    if self.ledger.is_pending(raw.key):
                        yield raw
        except (OSError, ValueError) as error:
            told = f"{type(error).__name__}: {error}"
        if not found:
            results.miss(self.job.out, self.ledger, self.job.sources, sorted(waiting), told)

    def collect(self, quiet: bool = False) -> tuple[list[dict[str, Any]], int]:
        """The rows of the run once all ranks are through, and how many instances have none."""
        wait_for_others(self.ledger, self.keys)
        if not quiet:
            print(self.members.told(), file=sys.stderr)
        results.give_up(self.job.out, self.keys, self.ledger)
        rows = results.collect(self.job.out, self.keys)
        if self.had_work:
            self.tracker.summarize(results.fits(self.job.out, self.keys))
        return rows, len(self.keys) - len(rows)


class InstanceSolver(pl.LightningModule):
    """The outer module: holds the frozen models of a rank; `predict_step` solves an instance.

    Args:
        runs: done one after another; models are loaded anew only where they differ.
        watch: called on the first rank whenever it is through with an instance of a run.
        quiet: whether nothing is shown of the work.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        watch: Callable[[Run], None] | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        self.runs = runs
        self.watch = watch
        self.quiet = quiet
        self.run: Run | None = None
        self.method: Method | None = None
        self.resources: Resources | None = None
        self.loaded: Any = None  # models.Models, once a run has been turned to
        self.line: RunLine | None = None

    def _turn_to(self, run: Run) -> None:
        """Makes the rank ready for a run: its models, its method."""
        config, before = run.job.config, self.run
        disable_progress_bar()  # transformers' own, one per model part
        settle(config.run)
        if before is None or not models.are_shared(before.job.config, config):
            self.run, self.method, self.resources, self.loaded = None, None, None, None
            if before is not None:  # never two sets at a time
                gc.unfreeze()
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            self.loaded = loaded.load(config, self.device_of_rank())
        resources = Resources(config, self.loaded, run.queries)
        method = load_method(config.method, resources)  # may refuse: then all is as it was
        self.run, self.resources, self.method = run, resources, method
        # Out of the collector's sight, a collection per instance costs 0.1 ms instead of 190.
        gc.collect()
        gc.freeze()

    def device_of_rank(self) -> torch.device:
        """The device this rank works on."""
        return self.trainer.strategy.root_device

    def predict_dataloader(self) -> WebLoader:
        """The samples of all runs, encoded."""
        # Samples are claimed in `predict_step`, not here: a loader reads ahead of what is solved.
        return WebLoader(DataPipeline(self._waiting), batch_size=None, num_workers=0)

    def _waiting(self) -> Iterator[tuple[Run, RawSample, Sequence[str]]]:
        """Samples that nobody is at work on, each with prompts that follow, until none is left.

        One pass is not enough: a rank may die after this one has passed its claim by. A rank that
        finds nothing to take waits for those at work, in case they die.
        """
        count = how_many(self.device_of_rank().type, self.trainer.world_size)
        while with_work := [run for run in self.runs if run.has_work()]:
            stops.check()
            idle = True
            for run in with_work:
                for raw, ahead in read_ahead(run.waiting(), count):
                    idle = False
                    yield run, raw, ahead
            if idle:
                time.sleep(POLL_SECONDS)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch as it is: encoded bytes."""
        return batch  # encoded bytes

    def on_predict_start(self) -> None:
        """Begins the line that shows the work, on the first rank."""
        if self.trainer.is_global_zero and not self.quiet:
            self.line = RunLine(sum(len(run.keys) for run in self.runs), self._finished())

    def on_predict_end(self) -> None:
        """Ends the line that shows the work."""
        for run in self.runs:
            run.binding.release(run.ledger)
        if self.line is not None:
            self.line.advance(self._finished())
        self.close_line()

    def close_line(self) -> None:
        """Ends the line, so that what is told next begins one."""
        if self.line is not None:
            self.line.close()

    def _finished(self) -> int:
        return sum(run.finished() for run in self.runs)

    def predict_step(self, batch: tuple[Run, RawSample, Sequence[str]], batch_idx: int) -> None:
        """Claims the instance and solves it, where it is nobody's yet."""
        run, raw, ahead = batch
        stops.check()
        if not run.is_closed():
            try:
                if run is not self.run:
                    self._turn_to(run)
                run.binding.confirm()  # loading may have taken minutes
            except Exception as error:
                run.binding.release(run.ledger)
                if len(self.runs) == 1:
                    raise
                # The other runs may have models that load; what half loaded went with the frames.
                run.refusal = error.with_traceback(None)
        claim = None if run.is_closed() else run.ledger.claim(raw.key)
        if claim is None:
            return
        folder = run.job.out / folder_name(raw.key)
        failed = False
        try:
            results.make_room(folder)
            with run.ledger.last_words(claim):
                # What has been begun before may have died of what was looked at.
                self._solve(run, raw, claim, ahead if claim.number == 1 else ())
            run.failures_in_a_row = 0
        except InstanceError as error:
            run.failures_in_a_row += not results.keep_error(folder, raw, error)
        except stops.Stopped:
            raise
        except (Exception, SystemExit) as error:  # a class of the user's may want to end it all
            kept = results.keep_error(folder, raw, error)
            # A ValueError is the instance's fault: what a method raises for one it cannot take.
            run.failures_in_a_row += not (kept and isinstance(error, ValueError))
            failed = True
        finally:  # also when the run is being stopped: an instance let go is no death
            run.ledger.release(claim)
        gc.collect()  # the error is gone, and with it what its frames held
        if failed and torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next instance may fit where this one did not
        if self.line is not None:
            self.line.advance(self._finished())
        if self.watch is not None and self.trainer.is_global_zero:
            self.watch(run)

    def _solve(self, run: Run, raw: RawSample, claim: Claim, ahead: Sequence[str]) -> None:
        method, resources = self.method, self.resources
        assert method is not None
        assert resources is not None
        instance, folder = decode(raw), run.job.out / folder_name(raw.key)
        results.keep_instance(folder, instance)

        def tell(reading: Reading | None) -> None:
            run.ledger.touch(claim)
            if reading is not None and self.line is not None:
                self.line.read(raw.key, reading)

        others = run.loggers.of(raw.key)
        with run.tracker.instance(raw.key) as tracked, closing(others):
            loggers = [*([tracked] if tracked else []), *others]
            outcome = carry_out(
                method, resources, instance, folder, tell=tell, logger=loggers, ahead=ahead
            )
            write_json(folder / DONE, results.done_row(outcome))  # whatever the tracker says then
            run.tracker.close(tracked, outcome)


def wait_for_others(ledger: Ledger, keys: list[str]) -> None:
    """Waits while ranks that this one did not start are at work, where this one takes no more.

    Ends when nobody is seen at work twice: who left the rest has died or stopped too, and a rerun
    of the command is due.
    """
    idle = 0
    while idle < 2 and (unfinished := ledger.unfinished(keys)):
        idle = idle + 1 if len(ledger.pending(unfinished)) == len(unfinished) else 0
        time.sleep(POLL_SECONDS)


def run(
    job: Job, *, accelerator: str, shape: Launch, quiet: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Solves every instance of a job that has no result yet.

    Args:
        job: what to do.
        accelerator: `cpu` or `gpu`.
        shape: processes per machine and machines, and which of them this is.
        quiet: whether nothing is shown of the work.

    Returns:
        On the first rank the rows of `results.jsonl`, and how many instances have none because
        the ranks that should have solved them died or stopped (a rerun takes them up); nothing on
        the others.

    Raises:
        ValueError: for a job that cannot start, before anything is written or loaded.
        Stopped: when a signal asked for it; `results.jsonl` then holds the rows so far.
    """
    one = Run(job)
    run_all([one], accelerator=accelerator, shape=shape, quiet=quiet)
    return one.collect(quiet) if shape.rank == 0 else ([], 0)


def run_all(
    runs: Sequence[Run],
    *,
    accelerator: str,
    shape: Launch,
    watch: Callable[[Run], None] | None = None,
    quiet: bool = False,
) -> None:
    """Takes this rank through the instances of all runs that have no result yet.

    Args:
        runs: in order; consecutive ones whose models are equal share them.
        accelerator: `cpu` or `gpu`.
        shape: processes per machine and machines, and which of them this is.
        watch: called on the first rank with a run in which it has just finished an instance.
        quiet: whether nothing is shown of the work.

    Raises:
        ValueError: for a run that cannot start, before anything is loaded.
        Stopped: when a signal asked for it; the claims of this rank are released.
    """
    for each in runs:
        each.open(shape.rank)
    if not any(each.had_work for each in runs):
        return
    device = torch.device("cuda", shape.device) if accelerator == "gpu" else torch.device("cpu")
    strategy = InstanceParallelStrategy(shape, device)
    solver = InstanceSolver(runs, watch, quiet)
    try:
        with secluded_trainer(
            strategy,
            runs[0].job.out / ".trainer",
            inference_mode=False,
            logger=False,
            use_distributed_sampler=False,
        ) as trainer:
            trainer.predict(solver, return_predictions=False)
    except BaseException:
        solver.close_line()
        for each in runs:
            each.ledger.release_own()
            if shape.rank == 0:
                results.collect(each.job.out, each.keys)
        raise
    if told := ranks.told(strategy.codes):
        print(f"ended early: {told}; others took up what they left", file=sys.stderr)
